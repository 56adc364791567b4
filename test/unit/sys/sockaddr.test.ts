import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { canonicalIp } from '../../../src/base/ip.ts';
import { decodeSockaddr, encodeSockaddr } from '../../../src/sys/sockaddr.ts';

const port = fc.integer({ min: 0, max: 65_535 });
const ip = fc.oneof(fc.ipV4(), fc.ipV6());

test('every address survives encoding, in canonical form', () => {
  fc.assert(
    fc.property(ip, port, (text, number) => {
      const bytes = encodeSockaddr({ ip: text, port: number });
      assert(bytes !== undefined);
      assert.deepEqual(decodeSockaddr(bytes), { ip: canonicalIp(text), port: number });
    }),
  );
});

test('any bytes at all decode to an address or to nothing', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 40 }), (bytes) => {
      const found = decodeSockaddr(bytes);
      assert(found === undefined || canonicalIp(found.ip) === found.ip);
    }),
  );
});

test('the layout is that of the kernel', () => {
  const hex = (text: string): string => Buffer.from(encodeSockaddr({ ip: text, port: 0x1234 }) ?? []).toString('hex');
  assert.equal(hex('10.1.2.3'), '020012340a0102030000000000000000');
  assert.equal(hex('fd77::1'), '0a00123400000000fd77000000000000000000000000000100000000');
  assert.equal(hex('::ffff:10.1.2.3'), '0a0012340000000000000000000000000000ffff0a01020300000000');
});

test('what is no address is not encoded', () => {
  for (const text of ['', 'localhost', '10.0.0.256', '010.0.0.1', 'fe80::1%eth0']) {
    assert.equal(encodeSockaddr({ ip: text, port: 1 }), undefined, text);
  }
});
