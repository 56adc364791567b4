import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ChunkQueue } from '../../../src/tunnel/h2-chunks.ts';

/** Lengths around each of the ways to keep octets; the content tells them apart. */
const octets = fc.tuple(
  fc.nat(255),
  fc.oneof(fc.nat(20), fc.integer({ min: 1000, max: 1100 }), fc.integer({ min: 10_000, max: 70_000 })),
);
const step = fc.oneof(
  fc.record({ push: octets, isLent: fc.boolean() }),
  fc.record({ copy: fc.nat(100_000) }),
  fc.record({ shift: fc.constant(true) }),
);

test('octets come out in the order they went in, whoever owned them and however they are taken', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      const queue = new ChunkQueue();
      const put: Uint8Array[] = [];
      const got: Uint8Array[] = [];
      for (const each of steps) {
        if ('push' in each) {
          const [seed, length] = each.push;
          const bytes = Uint8Array.from({ length }, (_, i) => seed + i);
          put.push(new Uint8Array(bytes));
          queue.push(bytes, each.isLent);
          if (each.isLent) bytes.fill(0xee);
        } else if ('copy' in each) {
          const out = new Uint8Array(Math.min(each.copy, queue.bytes));
          queue.copyTo(out, 0, out.length);
          got.push(out);
        } else {
          got.push(new Uint8Array(queue.shift() ?? []));
        }
      }
      const rest = new Uint8Array(queue.bytes);
      queue.copyTo(rest, 0, rest.length);
      assert.ok(Buffer.concat([...got, rest]).equals(Buffer.concat(put)));
      assert.equal(queue.bytes, 0);
    }),
    { numRuns: 150 },
  );
});

test('a queue that was cleared is empty and takes octets again', () => {
  const queue = new ChunkQueue();
  queue.push(new Uint8Array(100_000), true);
  queue.push(Uint8Array.of(1), false);
  queue.clear();
  assert.deepEqual([queue.bytes, queue.shift()], [0, undefined]);
  queue.push(Uint8Array.of(7), true);
  assert.deepEqual([...(queue.shift() ?? [])], [7]);
});
