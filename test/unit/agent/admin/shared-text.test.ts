import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SharedText } from '../../../../src/agent/admin/shared-text.ts';
import { FakeClock } from '../../../support/fake-clock.ts';

/** A text that takes 10 ms, and who waits for it. */
function fixture() {
  const clock = new FakeClock();
  const begun: number[] = [];
  const texts = new SharedText(async () => {
    begun.push(clock.monotonicMs());
    await new Promise<void>((resolve) => clock.after(10, resolve));
    return `text ${begun.length}`;
  }, clock);
  return { clock, begun, texts };
}

async function pass(clock: FakeClock, ms: number): Promise<void> {
  for (let step = 0; step < ms; step += 1) {
    clock.advance(1);
    await new Promise((resolve) => setImmediate(resolve));
  }
}

test('who asks while a text is made gets the next one, together with all others', async () => {
  const { clock, begun, texts } = fixture();
  const first = texts.get();
  await pass(clock, 1);
  const others = Promise.all(Array.from({ length: 100 }, () => texts.get()));
  await pass(clock, 100);
  assert.equal(await first, 'text 1');
  assert.deepEqual(new Set(await others), new Set(['text 2']));
  assert.equal(begun.length, 2);
});

test('however often it is asked for, four fifths of the time are left to others', async () => {
  const { clock, begun, texts } = fixture();
  let isOver = false;
  const asking = (async () => {
    while (!isOver) await texts.get();
  })();
  await pass(clock, 1_000);
  isOver = true;
  await pass(clock, 100);
  await asking;
  assert(begun.length >= 18 && begun.length <= 23, `begun ${begun.length} times`);
});

test('a failure is for those who asked, and the next one is tried', async () => {
  const clock = new FakeClock();
  let count = 0;
  const texts = new SharedText(async () => {
    count += 1;
    if (count === 1) throw new Error('the worker hangs');
    return 'text';
  }, clock);
  await assert.rejects(texts.get(), /the worker hangs/);
  const next = texts.get();
  await pass(clock, 10);
  assert.equal(await next, 'text');
});
