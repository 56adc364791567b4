import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { formatTraceParent, newTraceParent, parseTraceParent } from '../../../src/wire/traceparent.ts';
import { anyText } from '../../support/any-text.ts';

const TRACE = '0af7651916cd43dd8448eb211c80319c';
const SPAN = 'b7ad6b7169203331';

test('a fresh parent has 16 and 8 random bytes and no flags', () => {
  const random = { next: () => 0, hex: (bytes: number) => 'ab'.repeat(bytes) };
  assert.equal(formatTraceParent(newTraceParent(random)), `00-${'ab'.repeat(16)}-${'ab'.repeat(8)}-00`);
});

test('a parent of the right shape is read, whatever its flags', () => {
  assert.deepEqual(parseTraceParent(`00-${TRACE}-${SPAN}-01`), { traceId: TRACE, spanId: SPAN });
});

for (const [what, value] of [
  ['empty text', ''],
  ['55 zeros', '0'.repeat(55)],
  ['55 dashes', '-'.repeat(55)],
  ['an all-zero trace', `00-${'0'.repeat(32)}-${SPAN}-00`],
  ['an all-zero span', `00-${TRACE}-${'0'.repeat(16)}-00`],
  ['version ff', `ff-${TRACE}-${SPAN}-00`],
  ['capital letters', `00-${TRACE.toUpperCase()}-${SPAN}-00`],
  ['one character too many', `00-${TRACE}-${SPAN}-000`],
  ['a line break at the end', `00-${TRACE}-${SPAN}-00\n`],
  ['one character too few', `00-${TRACE}-${SPAN}-0`],
  ['dashes in other places', `00-${TRACE}0-${SPAN.slice(1)}-00`],
] as const) {
  test(`${what} is no parent`, () => assert.equal(parseTraceParent(value), undefined));
}

test('any text gives a parent that formats back to it, or nothing', () => {
  const piece = fc.constantFrom('00', '-', TRACE, SPAN, '0', 'f', '\0');
  const text = fc.oneof(
    anyText(),
    fc.array(piece, { maxLength: 8 }).map((list) => list.join('')),
  );
  fc.assert(
    fc.property(text, (value) => {
      const parent = parseTraceParent(value);
      assert(parent === undefined || formatTraceParent(parent).slice(3, 53) === value.slice(3, 53));
    }),
  );
});
