import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { SlotMap } from '../../../src/base/slot-map.ts';

const key = fc.integer({ min: 0, max: 9 });
const operation = fc.oneof(
  fc.record({ kind: fc.constant('set' as const), key, value: fc.option(fc.integer(), { nil: undefined }) }),
  fc.record({ kind: fc.constant('delete' as const), key }),
  fc.record({ kind: fc.constant('clear' as const) }),
);

test('it is a Map: same answers, same order', () => {
  fc.assert(
    fc.property(fc.array(operation, { maxLength: 60 }), (operations) => {
      const ours = new SlotMap<number, number | undefined>();
      const theirs = new Map<number, number | undefined>();
      for (const step of operations) {
        if (step.kind === 'set') {
          ours.set(step.key, step.value);
          theirs.set(step.key, step.value);
        } else if (step.kind === 'delete') assert.equal(ours.delete(step.key), theirs.delete(step.key));
        else {
          ours.clear();
          theirs.clear();
        }
        assert.equal(ours.size, theirs.size);
        assert.deepEqual([...ours.keys()], [...theirs.keys()]);
        assert.deepEqual([...ours.values()], [...theirs.values()]);
        for (let i = 0; i < 10; i++) {
          assert.equal(ours.has(i), theirs.has(i));
          assert.equal(ours.get(i), theirs.get(i));
        }
      }
    }),
  );
});

test('what is deleted while values are walked is left out, what is added is met', () => {
  const map = new SlotMap<string, number>();
  map.set('a', 1);
  map.set('b', 2);
  map.set('c', 3);
  const met: number[] = [];
  for (const value of map.values()) {
    met.push(value);
    map.delete('b');
    if (met.length === 1) map.set('d', 4);
  }
  assert.deepEqual(met, [1, 3, 4]);
});
