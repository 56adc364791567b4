import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BusyPods } from '../../../src/agent/workers/busy-pods.ts';
import { use } from '../telemetry/use-fixture.ts';

test('rates are of the time since the last look, and who does next to nothing is left out', () => {
  const pods = new BusyPods(1_000);
  const idle = use('idle', { loopSeconds: 0.004 });
  const busy = pods.look([use('a', { loopSeconds: 0.5, heldTurns: 100 }), idle], 2_000);
  assert.deepEqual(busy, [{ uid: 'a', share: 0.5, heldPerSecond: 100 }]);
  assert.deepEqual(pods.look([use('a', { loopSeconds: 1.5, heldTurns: 120 }), idle], 4_000), [
    { uid: 'a', share: 0.5, heldPerSecond: 10 },
  ]);
});

test('that nobody is busy any more is said once, and then nothing', () => {
  const pods = new BusyPods(0);
  const looks = [0, 0.5, 0.5, 0.5].map((loopSeconds, at) => pods.look([use('a', { loopSeconds })], 1_000 * (at + 1)));
  assert.deepEqual(
    looks.map((busy) => busy?.length),
    [undefined, 1, 0, undefined],
  );
});

test('of a pod that is there twice the sum counts, and one that began anew is another', () => {
  const pods = new BusyPods(0);
  pods.look([use('a', { loopSeconds: 3 })], 1_000);
  const both = pods.look([use('a', { loopSeconds: 3.2 }), use('a', { loopSeconds: 0.1 })], 2_000);
  assert.equal(both?.[0]?.share.toFixed(3), '0.300');
  assert.deepEqual(pods.look([use('a', { loopSeconds: 0.4 })], 3_000), []);
});
