import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  canonicalIp,
  formatCidr,
  formatHostPort,
  formatIp,
  ipBytes,
  ipFamily,
  isLoopback,
  parseCidr,
  parseHostPort,
} from '../../../src/base/ip.ts';

for (const [text, want] of [
  ['10.0.0.1', '10.0.0.1'],
  ['255.255.255.255', '255.255.255.255'],
  ['::', '::'],
  ['::1', '::1'],
  ['1::', '1::'],
  ['2001:DB8:0:0:1:0:0:1', '2001:db8::1:0:0:1'],
  ['2001:db8:0:1:1:1:1:1', '2001:db8:0:1:1:1:1:1'],
  ['0:0:0:0:0:0:0:0', '::'],
  ['::ffff:10.0.0.1', '10.0.0.1'],
  ['::ffff:a00:1', '10.0.0.1'],
  ['64:ff9b::10.0.0.1', '64:ff9b::a00:1'],
] as const) {
  test(`${text} is written ${want}`, () => assert.equal(canonicalIp(text), want));
}

for (const text of [
  '',
  '10.0.0',
  '10.0.0.1.2',
  '10.0.0.256',
  '10.0.0.01',
  '10.0.0.1 ',
  '0x0a.0.0.1',
  '167772161',
  ':',
  ':::',
  '1::2::3',
  '1:2:3:4:5:6:7',
  '1:2:3:4:5:6:7:8:9',
  '1:2:3:4:5:6:7::8:9',
  '12345::',
  'g::',
  '::1%eth0',
  '::10.0.0.1.2',
  '10.0.0.1::',
  '::10.0.0.1:1',
  '[::1]',
]) {
  test(`${JSON.stringify(text)} is no address`, () => assert.equal(ipBytes(text), undefined));
}

test('a formatted address parses to the same bytes', () => {
  const bytes = fc.oneof(
    fc.uint8Array({ minLength: 4, maxLength: 4 }),
    fc.uint8Array({ minLength: 16, maxLength: 16 }),
  );
  const sparse = fc
    .array(fc.constantFrom(0, 0, 0, 1, 255), { minLength: 16, maxLength: 16 })
    .map((list) => Uint8Array.from(list));
  fc.assert(
    fc.property(fc.oneof(bytes, sparse), (address) => {
      const text = formatIp(address);
      const back = ipBytes(text);
      assert(back !== undefined, text);
      assert.equal(formatIp(back), text);
      assert.equal(canonicalIp(text), text);
      assert.equal(ipFamily(text), back.length === 4 ? 4 : 6);
    }),
  );
});

test('any text gives 4 bytes, 16 bytes or nothing', () => {
  const pieces = fc.array(fc.constantFrom(':', '::', '.', '0', 'ffff', '255', '1', 'g', '%', '/'), { maxLength: 18 });
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string(),
        pieces.map((list) => list.join('')),
      ),
      (text) => {
        const bytes = ipBytes(text);
        assert(bytes === undefined || bytes.length === 4 || bytes.length === 16);
        parseHostPort(text);
        parseCidr(text);
      },
    ),
  );
});

for (const [text, want] of [
  ['10.0.0.1:80', { ip: '10.0.0.1', port: 80 }],
  ['10.0.0.1:0', { ip: '10.0.0.1', port: 0 }],
  ['[::1]:65535', { ip: '::1', port: 65_535 }],
  ['[::ffff:10.0.0.1]:80', { ip: '10.0.0.1', port: 80 }],
] as const) {
  test(`${text} is an address with port`, () => assert.deepEqual(parseHostPort(text), want));
}

for (const text of [
  '10.0.0.1',
  '10.0.0.1:',
  '10.0.0.1:65536',
  '10.0.0.1:080',
  '::1:80',
  '[10.0.0.1]:80',
  '[::1]',
  'a:80',
]) {
  test(`${text} is no address with port`, () => assert.equal(parseHostPort(text), undefined));
}

test('an address with port reads back', () => {
  const ip = fc.oneof(fc.ipV4(), fc.ipV6()).map((text) => canonicalIp(text) ?? '::');
  fc.assert(
    fc.property(fc.record({ ip, port: fc.nat(65_535) }, { noNullPrototype: true }), (hostPort) => {
      assert.deepEqual(parseHostPort(formatHostPort(hostPort)), hostPort);
    }),
  );
});

for (const [text, want] of [
  ['10.0.0.0/8', '10.0.0.0/8'],
  ['10.1.2.3/8', '10.0.0.0/8'],
  ['10.1.2.3', '10.1.2.3/32'],
  ['0.0.0.0/0', '0.0.0.0/0'],
  ['fd00::1/64', 'fd00::/64'],
  ['::/0', '::/0'],
  ['::1', '::1/128'],
  ['fd00::ff/121', 'fd00::80/121'],
  ['::ffff:10.0.0.0/104', '10.0.0.0/8'],
] as const) {
  test(`the range ${text} is ${want}`, () => {
    const range = parseCidr(text);
    assert.equal(range && formatCidr(range), want);
  });
}

for (const text of [
  '10.0.0.0/33',
  '::/129',
  '10.0.0.0/',
  '10.0.0.0/-1',
  '10.0.0.0/8/8',
  '10.0.0.0/ 8',
  '/8',
  'a/8',
  '',
]) {
  test(`${JSON.stringify(text)} is no range`, () => assert.equal(parseCidr(text), undefined));
}

test('loopback is all of 127/8 and ::1', () => {
  assert.deepEqual(['127.0.0.1', '127.255.0.1', '::1', '10.127.0.1', '::2'].map(isLoopback), [
    true,
    true,
    true,
    false,
    false,
  ]);
});
