import assert from 'node:assert/strict';
import { test } from 'node:test';
import { collectGarbage, residentBytes, trimMemory } from '../../../src/sys/garbage.ts';

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

test('what the C library has freed goes back to the system, the newest being still in use', async () => {
  // Each below the size for which the C library asks the system.
  const made = Array.from({ length: 2_048 }, () => Buffer.allocUnsafeSlow(32 * 1_024).fill(1));
  const holder: { held: readonly Buffer[] } = { held: made.splice(0) };
  const full = residentBytes();
  holder.held = holder.held.slice(-1);
  await collectGarbage();
  trimMemory();
  assert(full - residentBytes() > 32 * MIB, `${full - residentBytes()} bytes went back`);
  assert.equal(holder.held.length, 1);
});
