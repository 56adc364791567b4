import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LaneWatch } from '../../../../src/agent/workers/lane-watch.ts';
import type { PodStart } from '../../../../src/agent/workers/protocol.ts';
import { GREEDY_FOR_MS, SETTLED_MS } from '../../../../src/model/lane.ts';

const NETNS = { fd: 3, path: '', id: { device: 1n, inode: 2n } };
const [ONE, TWO] = [{}, {}];

function pod(id: number, uid: string, isAgent = false): PodStart {
  return { id, pod: { uid, isAgent }, netns: NETNS };
}

/** Looks once a second until a greedy pod is known to be one. */
function looked(watch: LaneWatch, pods: readonly PodStart[]): void {
  for (let nowMs = 0; nowMs <= SETTLED_MS + GREEDY_FOR_MS; nowMs += 1_000) watch.look(pods, nowMs);
}

function watching(): LaneWatch {
  return new LaneWatch({ greedyShare: 0.5, modestForMs: 1_000 });
}

test('what a pod uses is the sum over all workers', () => {
  const watch = watching();
  watch.tell(ONE, [{ uid: 'a', share: 0.3, heldPerSecond: 10 }]);
  watch.tell(TWO, [{ uid: 'a', share: 0.3, heldPerSecond: 5 }]);
  assert.deepEqual(watch.useOf('a'), { share: 0.6, heldPerSecond: 15 });
  looked(watch, [pod(1, 'a'), pod(2, 'b')]);
  assert.deepEqual([watch.laneOf(1), watch.laneOf(2)], ['greedy', 'common']);
});

test('the last word of a worker counts until it says another, or ends', () => {
  const watch = watching();
  watch.tell(ONE, [{ uid: 'a', share: 0.4, heldPerSecond: 10 }]);
  watch.tell(ONE, [{ uid: 'a', share: 0.2, heldPerSecond: 10 }]);
  watch.tell(TWO, [{ uid: 'a', share: 0.1, heldPerSecond: 10 }]);
  assert.equal(watch.useOf('a').share.toFixed(1), '0.3');
  watch.forget(TWO);
  assert.equal(watch.useOf('a').share, 0.2);
  watch.tell(ONE, []);
  assert.equal(watch.useOf('a').share, 0);
});

test('the pod of the agent itself is never greedy', () => {
  const watch = watching();
  watch.tell(ONE, [{ uid: 'agent', share: 1, heldPerSecond: 100 }]);
  looked(watch, [pod(1, 'agent', true)]);
  assert.equal(watch.laneOf(1), 'common');
});

test('a pod that went and came back begins anew', () => {
  const watch = watching();
  watch.tell(ONE, [{ uid: 'a', share: 1, heldPerSecond: 100 }]);
  looked(watch, [pod(1, 'a')]);
  assert.equal(watch.laneOf(1), 'greedy');
  watch.look([], 20_000);
  watch.look([pod(2, 'a')], 21_000);
  assert.deepEqual([watch.laneOf(1), watch.laneOf(2)], ['common', 'common']);
});

test('a pod that is attacked changes lanes at once, its namesake and the pod of the agent do not', () => {
  const watch = watching();
  const [old, fresh, own] = [pod(1, 'a'), pod(2, 'a'), pod(3, 'agent', true)];
  watch.look([old, fresh, own], 0);
  watch.attacked(fresh, 10);
  watch.attacked(own, 10);
  watch.look([old, fresh, own], 20);
  assert.deepEqual(
    [1, 2, 3].map((id) => watch.laneOf(id)),
    ['common', 'greedy', 'common'],
  );
});
