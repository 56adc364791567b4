import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { sortKeys } from '../../../../src/agent/admin/config-dump.ts';
import { jsonPieces } from '../../../../src/agent/admin/json-pieces.ts';
import { dumpMesh } from '../../../../src/model/dump.ts';
import { MeshIndex } from '../../../../src/model/mesh-index.ts';
import { workload } from '../../model/sample-mesh.ts';

/** With keys that are no numbers, which JavaScript puts in an order of its own. */
function named(value: unknown): unknown {
  return JSON.parse(JSON.stringify(value), (_key, part: unknown) => {
    if (typeof part !== 'object' || part === null || Array.isArray(part)) return part;
    return Object.fromEntries(Object.entries(part).map(([key, field]) => [`k${key}`, field]));
  });
}

test('the pieces are what JSON.stringify writes, with keys as they are or sorted', () => {
  fc.assert(
    fc.property(fc.jsonValue().map(named), (value) => {
      assert.equal([...jsonPieces(value, { isSorted: false })].join(''), JSON.stringify(value, undefined, 2));
      assert.equal([...jsonPieces(value, { isSorted: true })].join(''), JSON.stringify(sortKeys(value), undefined, 2));
    }),
  );
});

test('absent fields are left out, absent items are null, and iterables are lists', () => {
  const value = { b: undefined, a: [undefined, new Set([1, 2]), [].values()] };
  const text = [...jsonPieces(value, { isSorted: true })].join('');
  assert.equal(text, JSON.stringify({ a: [null, [1, 2], []] }, undefined, 2));
});

test('the dump of a large mesh is made while it is written, piece by piece', () => {
  const workloads = Array.from({ length: 2_000 }, (_, n) => workload(`w-${n}`));
  const index = new MeshIndex({ workloads, services: [], policies: [], rejectedPolicies: [] });
  let made = 0;
  const counted = dumpMesh(index).workloads[Symbol.iterator]();
  const list = { [Symbol.iterator]: () => ({ next: () => ((made += 1), counted.next()) }) };
  const pieces = jsonPieces({ workloads: list }, { isSorted: true })[Symbol.iterator]();
  const texts: string[] = [];
  for (let piece = pieces.next(), before = 0; piece.done !== true; piece = pieces.next()) {
    assert(piece.value.length < 32_768, `a piece of ${piece.value.length} characters`);
    assert(made - before < 100, `${made - before} records for one piece`);
    before = made;
    texts.push(piece.value);
  }
  const uids = JSON.parse(texts.join('')).workloads.map(({ uid }: { readonly uid: string }) => uid);
  assert.deepEqual(uids, workloads.map(({ uid }) => uid).toSorted());
});
