import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RecentMap } from '../../../src/base/recent-map.ts';

test('what is asked for stays, however much else comes', () => {
  const map = new RecentMap<number>(10);
  map.set('kept', 1);
  for (let n = 0; n < 1_000; n++) {
    map.set(`other-${n}`, n);
    if (n % 5 === 0) assert.equal(map.get('kept'), 1, `after ${n}`);
  }
});

test('never more than twice the bound is held, and the newest is among it', () => {
  const map = new RecentMap<number>(10);
  const keys = Array.from({ length: 1_000 }, (_, n) => `key-${n}`);
  for (const [n, key] of keys.entries()) {
    map.set(key, n);
    assert.equal(map.get(key), n);
  }
  const held = keys.filter((key) => map.get(key) !== undefined).length;
  assert(held >= 10 && held <= 20, `${held}`);
});

test('a value set again takes the place of the former, and a deleted one is gone from both generations', () => {
  const map = new RecentMap<number>(1);
  map.set('a', 1);
  map.set('b', 2);
  map.set('a', 3);
  assert.equal(map.get('a'), 3);
  map.delete('a');
  assert.equal(map.get('a'), undefined);
});
