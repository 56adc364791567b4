import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { inOrder } from '../../../src/base/in-order.ts';

test('items come in ascending order of their keys, equal ones as they stood', () => {
  fc.assert(
    fc.property(fc.array(fc.string({ maxLength: 2 })), (keys) => {
      const items = keys.map((key, at) => ({ key, at }));
      const sorted = items.toSorted((a, b) => (a.key === b.key ? a.at - b.at : a.key < b.key ? -1 : 1));
      assert.deepEqual([...inOrder(items, ({ key }) => key)], sorted);
    }),
  );
});
