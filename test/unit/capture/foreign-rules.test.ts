import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { silentLogger } from '../../../src/base/log.ts';
import { ForeignRules } from '../../../src/capture/foreign-rules.ts';
import { Limiter } from '../../../src/capture/limiter.ts';
import type { Gap } from '../../../src/capture/pod-rules.ts';
import type { Netns } from '../../../src/sys/sys.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { POD } from './web-pod.ts';

const GAP: Gap = { direction: 'outbound', text: 'IPv4 connections that the pod makes' };

function netns(inode: bigint): Netns {
  let fd = 3;
  return {
    path: '/run/web',
    id: { device: 1n, inode },
    get fd() {
      return fd;
    },
    [Symbol.dispose]: () => void (fd = -1),
  };
}

test('a pod whose namespace changes while the look at the former one waits for its turn is looked at', async () => {
  const clock = new FakeClock();
  const limiter = new Limiter(1);
  const looked: bigint[] = [];
  const check = {
    fingerprint: () => 'same',
    look: async ({ id }: Netns) => {
      looked.push(id.inode);
      return { gaps: [GAP], isWatched: true };
    },
  };
  const turns = Promise.withResolvers<void>();
  const others = limiter.run(() => turns.promise);
  const rules = new ForeignRules(
    { check, clock, limiter },
    { log: silentLogger, onChange: () => {}, onRepair: () => {} },
  );

  const former = netns(1n);
  await rules.ensure(POD, former);
  clock.advance(500);
  rules.forget();
  former[Symbol.dispose]();
  const now = netns(2n);
  await rules.ensure(POD, now);
  clock.advance(500);
  turns.resolve();
  await others;
  // As at each look over the pods.
  await rules.ensure(POD, now);
  clock.advance(500);
  await setImmediate();

  assert.deepEqual(looked, [2n]);
  assert.deepEqual(rules.view().notRedirected, [GAP]);
});
