import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Random } from '../../../src/base/random.ts';
import { isUsable, renewalDueMs, retryDelayMs } from '../../../src/model/rotation.ts';

const fixed = (value: number): Random => ({ next: () => value, hex: () => '' });
const anyRandom = fc.double({ min: 0, max: 0.999_999, noNaN: true }).map(fixed);
const DAY_MS = 86_400_000;
const need = (leftMs: number) => ({ leftMs, isMissed: true });

test('renewal falls at half of the lifetime, give or take a tenth of it', () => {
  const validity = { notBeforeMs: 1_000_000, notAfterMs: 1_000_000 + DAY_MS };

  assert.equal(renewalDueMs(validity, fixed(0.5)), 1_000_000 + DAY_MS / 2);
  assert.equal(renewalDueMs(validity, fixed(0)), 1_000_000 + DAY_MS * 0.45);
  fc.assert(
    fc.property(anyRandom, (random) => {
      const share = (renewalDueMs(validity, random) - validity.notBeforeMs) / DAY_MS;
      assert(share >= 0.45 && share <= 0.55, String(share));
    }),
  );
});

test('a certificate is usable up to and including its last millisecond', () => {
  const validity = { notBeforeMs: 0, notAfterMs: 5_000 };

  assert.equal(isUsable(validity, 5_000), true);
  assert.equal(isUsable(validity, 5_001), false);
});

test('failed renewals back off from 1 s, doubling, to 150 s', () => {
  const delays = Array.from({ length: 10 }, (_, attempt) => retryDelayMs(attempt, need(DAY_MS), fixed(0.5)) / 1000);

  assert.deepEqual(delays, [1, 2, 4, 8, 16, 32, 64, 128, 150, 150]);
});

test('no retry of a renewal comes later than 150 s, earlier than 1 s, or in the second half of what is left', () => {
  const left = fc.integer({ min: 2_000, max: DAY_MS });
  fc.assert(
    fc.property(fc.nat({ max: 100 }), left, anyRandom, (attempt, leftMs, random) => {
      const delayMs = retryDelayMs(attempt, need(leftMs), random);
      assert(delayMs >= 1_000 && delayMs <= 150_000 && delayMs <= leftMs / 2, String(delayMs));
    }),
  );
});

test('without a certificate that a handshake missed the CA is asked at least every 18 s', () => {
  fc.assert(
    fc.property(fc.nat({ max: 100 }), fc.integer({ min: -DAY_MS, max: 0 }), anyRandom, (attempt, leftMs, random) => {
      const delayMs = retryDelayMs(attempt, need(leftMs), random);
      assert(delayMs >= 800 && delayMs <= 18_000, String(delayMs));
    }),
  );
});

test('without a certificate that nobody missed the CA is asked less and less, down to every 150 s', () => {
  const unmissed = { leftMs: 0, isMissed: false };
  const delays = Array.from({ length: 9 }, (_, attempt) => retryDelayMs(attempt, unmissed, fixed(0.5)) / 1000);

  assert.deepEqual(delays, [1, 2, 4, 8, 16, 32, 64, 128, 150]);
});
