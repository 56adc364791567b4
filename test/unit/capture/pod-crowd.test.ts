import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { MeshError } from '../../../src/base/errors.ts';
import { silentLogger } from '../../../src/base/log.ts';
import type { CapturedPod, PodSink } from '../../../src/capture/pod-source.ts';
import { PodManager } from '../../../src/capture/pods.ts';
import { linuxSys } from '../../../src/sys/linux.ts';
import type { Netns, Sys } from '../../../src/sys/sys.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { POD } from './web-pod.ts';

const COUNT = 300;
const CROWD: readonly CapturedPod[] = Array.from({ length: COUNT }, (_, i) => ({
  ...POD,
  uid: `u${i}`,
  netnsPath: `/run/none-${i}`,
}));

/** Pods whose namespaces are in the hands of the test; how often one of them was opened. */
function crowd(openNetns: (path: string) => Netns) {
  const opened = new Map<string, number>();
  const told: number[] = [];
  let sink: PodSink | undefined;
  const sys: Sys = {
    ...linuxSys,
    isMachineNetns: () => false,
    openNetns: (path) => {
      opened.set(path, (opened.get(path) ?? 0) + 1);
      return openNetns(path);
    },
  };
  const manager: PodManager = new PodManager({
    sys,
    clock: new FakeClock(),
    log: silentLogger,
    source: { start: (to) => ((sink = to), { [Symbol.dispose]: () => {} }) },
    startProxy: async () => ({ stop: async () => {} }),
    rules: { kind: 'none' },
    onChange: () => void told.push(manager.counts().pending),
  });
  manager.start();
  assert(sink !== undefined);
  return { manager, sink, opened, told };
}

function gone(path: string): never {
  throw new MeshError('CV-NETNS', 'no such namespace', { path, errno: 'ENOENT' });
}

test('who observes a list of hundreds is told of its last state, and not once for each pod', async () => {
  const { sink, told } = crowd(gone);
  await Promise.all(CROWD.map((pod) => sink.upsert(pod)));
  await setImmediate();
  assert.equal(told.at(-1), COUNT);
  assert.equal(told.length < COUNT, true, `${told.length} times`);

  await Promise.all(CROWD.map(({ uid }) => sink.remove(uid)));
  await setImmediate();
  assert.equal(told.at(-1), 0);
  assert.equal(told.length < COUNT, true, `${told.length} times`);
});

test('pods that leave do not make all others try again', async () => {
  const { sink, opened } = crowd(gone);
  await Promise.all(CROWD.map((pod) => sink.upsert(pod)));
  await Promise.all(CROWD.slice(1).map(({ uid }) => sink.remove(uid)));
  await setImmediate();
  assert.equal(opened.get('/run/none-0'), 1);
});

test('a pod that waits for the namespace of another is captured as soon as that has left', async () => {
  const netns: Netns = { path: POD.netnsPath, fd: 3, id: { device: 1n, inode: 1n }, [Symbol.dispose]: () => {} };
  const { manager, sink } = crowd((path) => (path === POD.netnsPath ? netns : gone(path)));
  assert.equal(await sink.upsert(POD), undefined);
  const next = { ...POD, uid: 'next' };
  assert.equal((await sink.upsert(next))?.fields['owner'], POD.uid);

  await sink.remove(POD.uid);
  await setImmediate();

  assert.deepEqual(
    manager.statuses().map(({ pod, state }) => [pod.uid, state]),
    [['next', 'Up']],
  );
});
