import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { oneAtATime } from '../../../src/base/one-at-a-time.ts';

test('a task asked for while it is under way runs once more afterwards, however often it was asked for', async () => {
  const ends: (() => void)[] = [];
  const ask = oneAtATime(() => new Promise<void>((resolve) => void ends.push(resolve)));
  ask();
  ask();
  ask();
  assert.equal(ends.length, 1, 'it begins at once, and one at a time');
  ends[0]?.();
  await setImmediate();
  assert.equal(ends.length, 2);
  ends[1]?.();
  await setImmediate();
  assert.equal(ends.length, 2);
  ask();
  assert.equal(ends.length, 3);
});
