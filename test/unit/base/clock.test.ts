import assert from 'node:assert/strict';
import { test } from 'node:test';
import { deadline, withDeadline } from '../../../src/base/clock.ts';
import { FakeClock } from '../../support/fake-clock.ts';

function started(limitMs: number): { readonly clock: FakeClock; readonly fired: () => boolean } {
  const clock = new FakeClock();
  let isOver = false;
  deadline(clock, limitMs, () => (isOver = true));
  return { clock, fired: () => isOver };
}

test('a deadline is over after its time, and not before', () => {
  for (const limitMs of [1, 500, 1_000, 2_500, 60_000]) {
    const { clock, fired } = started(limitMs);
    clock.advance(limitMs - 1);
    assert.equal(fired(), false, `${limitMs} ms`);
    clock.advance(1);
    assert.equal(fired(), true, `${limitMs} ms`);
  }
});

test('a loop that stood still for an hour has waited for a second at most', () => {
  const { clock, fired } = started(10_000);
  clock.advance(4_500);
  clock.stall(3_600_000);
  assert.equal(fired(), false);
  clock.advance(4_999);
  assert.equal(fired(), false);
  clock.advance(1);
  assert.equal(fired(), true);
});

test('after a late timer what has arrived is read before the deadline is judged, and that only once', () => {
  const { clock, fired } = started(800);
  clock.stall(30_000);
  assert.equal(fired(), false);
  clock.stall(30_000);
  assert.equal(fired(), true);
});

test('a deadline that was cancelled never comes', () => {
  const clock = new FakeClock();
  const handle = deadline(clock, 3_000, () => assert.fail('it came'));
  clock.advance(2_500);
  handle[Symbol.dispose]();
  clock.advance(10_000);
});

test('an answer that came while the loop stood still is in time', async () => {
  const clock = new FakeClock();
  const answer = Promise.withResolvers<string>();
  const asked = withDeadline(answer.promise, clock, 900, () => new Error('late'));
  clock.stall(20_000);
  answer.resolve('here');
  clock.advance(1_000);
  assert.equal(await asked, 'here');
});
