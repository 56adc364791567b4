import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LogBatch } from '../../../src/telemetry/log-batch.ts';

function batchFixture() {
  const overflow: string[] = [];
  let news = 0;
  const batch = new LogBatch(() => (news += 1), { write: (line) => overflow.push(line) });
  return { batch, overflow, news: () => news };
}

test('lines are taken once, whole and in order, in pieces of a pipe buffer', () => {
  const { batch, overflow } = batchFixture();
  const lines = Array.from({ length: 100 }, (_, at) => `${at} ${'x'.repeat(200)}\n`);
  for (const line of lines) batch.write(line);
  const pieces = batch.take();
  assert.equal(pieces.join(''), lines.join(''));
  assert(pieces.every((piece) => piece.length <= 4_096 && piece.endsWith('\n')));
  assert.deepEqual(batch.take(), []);
  assert.deepEqual(overflow, []);
});

test('every line is news', () => {
  const { batch, news } = batchFixture();
  batch.write('one\n');
  batch.write('two\n');
  assert.equal(news(), 2);
});

test('past the bound lines go to the overflow, none lost and none twice', () => {
  const { batch, overflow } = batchFixture();
  const line = `${'y'.repeat(1_000_000)}\n`;
  for (let at = 0; at < 6; at++) batch.write(line);
  assert.equal(overflow.join('').length + batch.take().join('').length, 6 * line.length);
  assert(overflow.length > 0);
});
