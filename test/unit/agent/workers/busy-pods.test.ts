import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BusyPods, type LookTime } from '../../../../src/agent/workers/busy-pods.ts';
import { use } from '../../telemetry/use-fixture.ts';

/** A thread that had a CPU whenever it wanted one. */
function at(nowMs: number, cpuMs = nowMs): LookTime {
  return { nowMs, cpuMs };
}

test('rates are of the time since the last look, and who does next to nothing is left out', () => {
  const pods = new BusyPods(at(1_000));
  const idle = use('idle', { loopSeconds: 0.004 });
  const busy = pods.look([use('a', { loopSeconds: 0.5, heldTurns: 100 }), idle], at(2_000));
  assert.deepEqual(busy, [{ uid: 'a', share: 0.5, heldPerSecond: 100 }]);
  assert.deepEqual(pods.look([use('a', { loopSeconds: 1.5, heldTurns: 120 }), idle], at(4_000)), [
    { uid: 'a', share: 0.5, heldPerSecond: 10 },
  ]);
});

test('that nobody is busy any more is said once, and then nothing', () => {
  const pods = new BusyPods(at(0));
  const looks = [0, 0.5, 0.5, 0.5].map((loopSeconds, second) =>
    pods.look([use('a', { loopSeconds })], at(1_000 * (second + 1))),
  );
  assert.deepEqual(
    looks.map((busy) => busy?.length),
    [undefined, 1, 0, undefined],
  );
});

test('of a pod that is there twice the sum counts, and one that began anew is another', () => {
  const pods = new BusyPods(at(0));
  pods.look([use('a', { loopSeconds: 3 })], at(1_000));
  const both = pods.look([use('a', { loopSeconds: 3.2 }), use('a', { loopSeconds: 0.1 })], at(2_000));
  assert.equal(both?.[0]?.share.toFixed(3), '0.300');
  assert.deepEqual(pods.look([use('a', { loopSeconds: 0.4 })], at(3_000)), []);
});

test('a pod whose thread waited for a CPU while it was at work has not used that time', () => {
  const pods = new BusyPods(at(0));
  const uses = [use('a', { loopSeconds: 0.6, heldTurns: 50 }), use('b', { loopSeconds: 0.3 })];
  const busy = pods.look(uses, at(1_000, 90));
  assert.deepEqual(
    busy?.map(({ uid, share }) => [uid, share.toFixed(3)]),
    [
      ['a', '0.060'],
      ['b', '0.030'],
    ],
  );
});
