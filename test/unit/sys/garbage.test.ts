import assert from 'node:assert/strict';
import { test } from 'node:test';
import { collectGarbage } from '../../../src/sys/garbage.ts';

const MIB = 2 ** 20;

test('what nobody holds any more is gone when it resolves', async () => {
  const before = process.memoryUsage().arrayBuffers;
  const holder: { held: readonly Uint8Array[] } = { held: Array.from({ length: 64 }, () => new Uint8Array(MIB)) };
  const held = process.memoryUsage().arrayBuffers;
  assert(held - before >= 32 * MIB, `only ${held - before} bytes came`);

  holder.held = [];
  await collectGarbage();

  const left = process.memoryUsage().arrayBuffers - before;
  assert(left < 16 * MIB, `${left} bytes are left`);
});
