import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MeshError } from '../../../src/base/errors.ts';
import { silentLogger } from '../../../src/base/log.ts';
import { NetnsClaims, NodeNetns } from '../../../src/capture/netns-claims.ts';
import { OwnRules } from '../../../src/capture/own-rules.ts';
import type { Redirection } from '../../../src/capture/redirect.ts';
import { linuxSys } from '../../../src/sys/linux.ts';
import type { Netns, Sys } from '../../../src/sys/sys.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { POD } from './web-pod.ts';

const NETNS: Netns = { path: '/run/web', fd: 3, id: { device: 1n, inode: 1n }, [Symbol.dispose]: () => {} };

/** A namespace whose rules are in place once they were applied, and a kernel that fails to close connections at first. */
function fixture(failures: number, sys: Sys = linuxSys) {
  let isApplied = false;
  const tries: string[] = [];
  const said: string[] = [];
  let changes = 0;
  let removals = 0;
  const removing = Promise.withResolvers<void>();
  const clock = new FakeClock();
  const redirection: Redirection = {
    track: async () => {},
    apply: async () => void (isApplied = true),
    fingerprint: () => String(changes),
    verify: async () => (isApplied ? [] : ['all nft tables are gone']),
    closeStale: () => {
      tries.push('close');
      if (tries.length <= failures) throw new MeshError('CV-SYS', 'netlink answered too much');
      return 1;
    },
    release: async () => {},
    remove: async () => {
      removals += 1;
      await removing.promise;
    },
  };
  const claims = new NetnsClaims(new NodeNetns(linuxSys, 'any'), () => []);
  const settings = { ipv4: true, ipv6: false, dnsCapture: false };
  const log = {
    ...silentLogger,
    warn: (message: string, fields = {}) => void said.push(`${message} ${JSON.stringify(fields)}`),
  };
  const observer = { log, onChange: () => {}, onRepair: () => {} };
  const rules = new OwnRules({ sys, clock, redirection, settings, claims }, observer);
  const remove = (): void => {
    isApplied = false;
    changes += 1;
  };
  return { rules, claims, tries, said, clock, remove, removing, removals: () => removals };
}

test('a pod whose connections from before could not be closed is not captured until they are', async () => {
  const { rules, tries } = fixture(2);
  await assert.rejects(rules.ensure(POD, NETNS), /netlink answered too much/);
  await assert.rejects(rules.ensure(POD, NETNS), /netlink answered too much/);
  assert.equal(rules.isInPlace, false);

  await rules.ensure(POD, NETNS);

  assert.equal(rules.isInPlace, true);
  assert.equal(tries.length, 3);
});

test('connections from before are looked for once, not at every look', async () => {
  const { rules, tries } = fixture(0);
  for (let look = 0; look < 3; look += 1) await rules.ensure(POD, NETNS);
  assert.equal(tries.length, 1);
});

test('rules that somebody removes all the time are repaired each time, and said once a minute', async () => {
  const { rules, said, clock, remove } = fixture(0);
  await rules.ensure(POD, NETNS);
  for (let second = 0; second < 90; second += 1) {
    remove();
    await rules.ensure(POD, NETNS);
    clock.advance(1_000);
  }
  assert.equal(rules.view().repairs, 90);
  assert.equal(said.length, 2);
  assert.match(said[1] ?? '', /^redirection repaired .*"repairs":61/);
});

test('rules left in a pod are not forgotten because there is no descriptor to look with', async () => {
  let isFull = true;
  const openNetns = (): Netns => {
    if (isFull) throw new MeshError('CV-NETNS', 'open of the network namespace failed', { errno: 'EMFILE' });
    return NETNS;
  };
  const { rules, removals, removing } = fixture(0, { ...linuxSys, openNetns });
  removing.resolve();
  await assert.rejects(
    rules.withdraw(POD, undefined, async () => {}),
    { code: 'CV-NETNS' },
  );

  isFull = false;
  await rules.withdraw(POD, undefined, async () => {});

  assert.equal(removals(), 1);
});

test('while rules left in a namespace are taken away, no other pod is captured there', async () => {
  const { rules, claims, removing } = fixture(0, { ...linuxSys, openNetns: () => NETNS });
  const gone = rules.withdraw(POD, undefined, async () => {});
  assert.throws(() => claims.claim(NETNS, 'next'), { code: 'CV-NETNS' });

  removing.resolve();
  await gone;

  claims.claim(NETNS, 'next');
});
