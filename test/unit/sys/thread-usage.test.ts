import assert from 'node:assert/strict';
import { test } from 'node:test';
import { systemClock } from '../../../src/sys/system-clock.ts';
import { threadUsage } from '../../../src/sys/thread-usage.ts';

const timers = (): number => threadUsage().resources['Timeout'] ?? 0;

test('a timer of the clock is counted until it fires, or is cancelled, however often', async () => {
  const before = timers();
  const { promise, resolve } = Promise.withResolvers<number>();
  using _fires = systemClock.after(1, () => resolve(timers()));
  const cancelled = systemClock.after(60_000, () => {});
  assert.equal(timers(), before + 2);
  cancelled[Symbol.dispose]();
  cancelled[Symbol.dispose]();
  assert.equal(timers(), before + 1);
  // Keeps the process alive, which the clock does not; it is counted too.
  const alive = setInterval(() => {}, 60_000);
  assert.equal(await promise, before + 1);
  clearInterval(alive);
  assert.equal(timers(), before);
});
