import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Heartbeat, HeartbeatWatch } from '../../../../src/agent/workers/heartbeat.ts';

const PERIOD_MS = 1_000;
const HANG_MS = 10_000;

/** A thread that is looked at once a second and gets `cpuShare` of a CPU; after so many looks it is taken for hung. */
function hungAfter(cpuShare: number, beatsAt: (look: number) => boolean = () => false): number | undefined {
  let cpuMs = 0;
  const watch = new HeartbeatWatch(() => cpuMs);
  const heart = new Heartbeat(watch.memory);
  heart.beat();
  for (let look = 0; look < 300; look++) {
    if (watch.isHung(PERIOD_MS, HANG_MS)) return look;
    cpuMs += cpuShare * PERIOD_MS;
    if (beatsAt(look)) heart.beat();
  }
  return undefined;
}

for (const { name, cpuShare, looks } of [
  { name: 'in an endless loop with a CPU of its own is hung after the time that was set', cpuShare: 1, looks: 10 },
  { name: 'in an endless loop with a quarter of a CPU is found as soon', cpuShare: 0.25, looks: 10 },
  {
    name: 'in an endless loop with a tenth of a CPU is found when it has used what hangs use',
    cpuShare: 0.1,
    looks: 25,
  },
  { name: 'that uses nothing for six times as long waits for what does not come', cpuShare: 0, looks: 60 },
]) {
  test(`a thread ${name}`, () => assert.equal(hungAfter(cpuShare), looks));
}

test('a thread that gets next to no CPU and turns once in a while lives', () => {
  assert.equal(
    hungAfter(0.03, (look) => look % 40 === 39),
    undefined,
  );
});

test('what a thread had used before it stood still does not speak against it', () => {
  assert.equal(
    hungAfter(1, (look) => look < 100),
    110,
  );
});
