import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type BudgetChange, budgetPart, parseBudget } from '../../../src/model/budget.ts';

const good: readonly (readonly [text: string, change: BudgetChange])[] = [
  ['connections=2000', { connections: 2_000 }],
  ['handshakes=50/s', { handshakesPerSecond: 50 }],
  ['buffers=64Mi', { bufferedBytes: 64 * 1024 ** 2 }],
  ['buffers=2048Ki,loop=25%', { bufferedBytes: 2 * 1024 ** 2, loopShare: 0.25 }],
  [' connections=1 , loop=100% ', { connections: 1, loopShare: 1 }],
];
for (const [text, change] of good) {
  test(`${JSON.stringify(text)} is understood`, () => assert.deepEqual(parseBudget(text), { value: change }));
}

const bad: readonly (readonly [text: string, problem: RegExp])[] = [
  ['', /not one of connections/],
  ['connections', /not one of/],
  ['connections=', /connections must be a whole number from 1 to 1000000, got ""/],
  ['connections=0', /connections must be/],
  ['connections=-5', /connections must be/],
  ['connections=1e3', /connections must be/],
  ['connections=1000001', /connections must be/],
  ['connections=999999999999999', /connections must be/],
  ['connections=9999999999999999999999', /connections must be/],
  ['connections=5,connections=6', /connections is there twice/],
  ['connections=5=6', /not one of/],
  ['handshakes=50', /handshakes must be .* from 1\/s to 100000\/s/],
  ['buffers=64', /buffers must be a size/],
  ['buffers=64MB', /buffers must be a size/],
  ['buffers=1Ki', /from 1Mi to 64Gi/],
  ['buffers=65Gi', /from 1Mi to 64Gi/],
  ['loop=0%', /loop must be a share/],
  ['loop=101%', /loop must be a share/],
  ['loop=0.5', /loop must be a share/],
  ['cpu=1', /"cpu=1" is not one of/],
  ['connections=5;loop=5%', /not one of/],
  ['connections=5,', /"" is not one of/],
  ['x'.repeat(300), /over 256 characters/],
];
for (const [text, problem] of bad) {
  test(`${JSON.stringify(text.slice(0, 60))} is refused whole, with the reason`, () => {
    const parsed = parseBudget(text);
    assert.ok('problem' in parsed);
    assert.match(parsed.problem, problem);
  });
}

test('any text at all gives a budget within its bounds or a problem, never an error', () => {
  const piece = fc.constantFrom(
    'connections',
    'handshakes',
    'buffers',
    'loop',
    '=',
    ',',
    '/s',
    'Mi',
    '%',
    '1',
    '99',
    ' ',
    '-',
  );
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string(),
        fc.array(piece).map((parts) => parts.join('')),
      ),
      (text) => {
        const parsed = parseBudget(text);
        if ('problem' in parsed) return;
        const { connections = 1, handshakesPerSecond = 1, bufferedBytes = 1 << 20, loopShare = 1 } = parsed.value;
        assert.ok(connections >= 1 && handshakesPerSecond >= 1 && bufferedBytes >= 1 << 20);
        assert.ok(loopShare >= 0.01 && loopShare <= 1);
      },
    ),
  );
});

test('threads share a budget, but for time, which is of each', () => {
  const budget = { connections: 5, handshakesPerSecond: 1, bufferedBytes: 10, loopShare: 0.5 };
  assert.deepEqual(budgetPart(budget, 2), {
    connections: 3,
    handshakesPerSecond: 1,
    bufferedBytes: 5,
    loopShare: 0.5,
  });
});
