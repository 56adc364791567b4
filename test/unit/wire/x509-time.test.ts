import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { readX509Time, rfc3339Seconds, writeX509Time } from '../../../src/wire/x509-time.ts';

const whole = fc.integer({ min: -62_135_596_800, max: 253_402_300_799 });

test('every second of the years 1 to 9999 survives being written and read', () => {
  fc.assert(
    fc.property(whole, (seconds) => {
      const { tag, text } = writeX509Time(seconds * 1000);
      assert.equal(readX509Time(tag, Buffer.from(text)), seconds * 1000);
    }),
    { numRuns: 5_000 },
  );
});

test('RFC 3339 text is what Date prints', () => {
  fc.assert(
    fc.property(whole, (seconds) => {
      assert.equal(rfc3339Seconds(seconds * 1000 + 999), new Date(seconds * 1000).toISOString().replace('.000', ''));
    }),
    { numRuns: 5_000 },
  );
});

const wrong: readonly (readonly [string, number, string])[] = [
  ['a day that does not exist', 0x17, '230229000000Z'],
  ['a month 13', 0x17, '231301000000Z'],
  ['a second 60', 0x17, '230101000060Z'],
  ['no seconds', 0x17, '2301010000Z'],
  ['an offset instead of Z', 0x17, '230101000000+0100'],
  ['a fraction', 0x18, '20230101000000.5Z'],
  ['a sign for a digit', 0x17, '-30101000000Z'],
  ['a tag that is no time', 0x13, '230101000000Z'],
];

for (const [name, tag, text] of wrong) {
  test(`a time with ${name} is refused`, () => {
    assert.throws(() => readX509Time(tag, Buffer.from(text)), { name: 'MeshError', code: 'CV-WIRE-MALFORMED' });
  });
}
