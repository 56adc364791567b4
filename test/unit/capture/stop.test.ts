import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { silentLogger } from '../../../src/base/log.ts';
import type { CapturedPod, PodSink } from '../../../src/capture/pod-source.ts';
import { PodManager } from '../../../src/capture/pods.ts';
import { createRedirection } from '../../../src/capture/redirect.ts';
import { linuxSys } from '../../../src/sys/linux.ts';
import type { Netns, Sys, ToolResult } from '../../../src/sys/sys.ts';
import { FakeClock } from '../../support/fake-clock.ts';

function pod(name: string): CapturedPod {
  const options = { isIngressMode: false, rerouteInterfaces: [] };
  return { uid: name, name, namespace: 'demo', serviceAccount: name, netnsPath: `/run/${name}`, options };
}

/** Namespaces by path, and tools that run until the test lets them go. */
function fakeSys() {
  const running: PromiseWithResolvers<ToolResult>[] = [];
  const inodes = new Map<string, bigint>();
  const netns = (path: string): Netns => {
    const inode = inodes.get(path) ?? BigInt(inodes.size + 1);
    inodes.set(path, inode);
    return { path, fd: 3, id: { device: 1n, inode }, [Symbol.dispose]: () => {} };
  };
  const sys: Sys = {
    ...linuxSys,
    openNetns: netns,
    isMachineNetns: () => false,
    scratchNetns: () => netns('scratch'),
    fingerprint: () => '',
    hasIpv6: () => false,
    runInNetns: () => {
      const tool = Promise.withResolvers<ToolResult>();
      running.push(tool);
      return tool.promise;
    },
  };
  return {
    sys,
    finishTools: () => running.splice(0).forEach((tool) => tool.resolve({ code: 1, stdout: '', stderr: '' })),
  };
}

test('a stop starts no proxy for pods that still wait for their turn', { timeout: 10_000 }, async () => {
  const { sys, finishTools } = fakeSys();
  const started: string[] = [];
  let sink: PodSink | undefined;
  const manager = new PodManager({
    sys,
    clock: new FakeClock(),
    log: silentLogger,
    source: {
      start: (to) => {
        sink = to;
        return { [Symbol.dispose]: () => {} };
      },
    },
    rules: { kind: 'agent', redirection: createRedirection(sys) },
    settings: { maxConcurrent: 1 },
    startProxy: async ({ name }) => {
      started.push(name);
      return { stop: async () => {} };
    },
  });
  manager.start();
  for (const name of ['first', 'second', 'third']) void sink?.upsert(pod(name));
  await nextTurn();
  assert.deepEqual(started, ['first']);

  const stopped = manager.stop('graceful');
  finishTools();
  await stopped;

  assert.deepEqual(started, ['first']);
});
