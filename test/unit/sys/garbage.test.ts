import assert from 'node:assert/strict';
import { test } from 'node:test';
import { collectGarbage } from '../../../src/sys/garbage.ts';

test('what nobody holds any more is gone when it resolves', async () => {
  const before = process.memoryUsage();
  fill();
  const filled = process.memoryUsage();
  await collectGarbage();
  const after = process.memoryUsage();
  assert(filled.arrayBuffers - before.arrayBuffers >= 64 * 2 ** 20);
  assert(
    after.arrayBuffers - before.arrayBuffers < 2 ** 20,
    `${after.arrayBuffers - before.arrayBuffers} bytes are left`,
  );
});

/** In a frame of its own, so that nothing of it is held. */
function fill(): void {
  Array.from({ length: 64 }, () => new Uint8Array(2 ** 20));
}
