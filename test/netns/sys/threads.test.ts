import assert from 'node:assert/strict';
import { readlinkSync } from 'node:fs';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { linuxSys } from '../../../src/sys/linux.ts';
import { ownNetnsFd } from '../../../src/sys/netns.ts';
import { skipWithoutRoot, TestNetns } from '../../support/netns.ts';
import type { FlipResult, FlipTask } from './flip-thread.ts';

const privileged = { skip: skipWithoutRoot, timeout: 60_000 };
const THREADS = 3;
const FLIPS = 2_000;

function flip(task: FlipTask): Promise<FlipResult> {
  const { promise, resolve, reject } = Promise.withResolvers<FlipResult>();
  new Worker(new URL('./flip-thread.ts', import.meta.url), { workerData: task })
    .once('message', resolve)
    .once('error', reject);
  return promise;
}

test(
  'threads enter namespaces by descriptors of the main thread, at the same time, and each returns',
  privileged,
  async () => {
    await using one = await TestNetns.create();
    await using two = await TestNetns.create();
    using first = linuxSys.openNetns(one.path);
    using second = linuxSys.openNetns(two.path);
    const netns = [first, second].map(({ fd, path, id }) => ({ fd, path, id }));
    const task: FlipTask = { ownFd: ownNetnsFd(), netns, flips: FLIPS };
    const own = readlinkSync('/proc/thread-self/ns/net');
    let isDone = false;
    const flipping = Promise.all(Array.from({ length: THREADS }, () => flip(task))).finally(() => (isDone = true));
    while (!isDone) {
      // The main thread does the same meanwhile.
      linuxSys.close(linuxSys.socketTcp(first, { family: 4 }).fd);
      assert.equal(readlinkSync('/proc/thread-self/ns/net'), own);
      await nextTurn();
    }
    const inodes = [first, second].map(({ id }) => String(id.inode));
    for (const { places, isHome } of await flipping) {
      assert.equal(isHome, true);
      assert.deepEqual(places.toSorted(), inodes.toSorted());
    }
  },
);

test('a thread that is given another descriptor than its own namespace says so', privileged, async () => {
  await using pod = await TestNetns.create();
  using netns = linuxSys.openNetns(pod.path);
  await assert.rejects(
    flip({ ownFd: netns.fd, netns: [], flips: 0 }),
    /another network namespace than the main thread/,
  );
});
