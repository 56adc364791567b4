import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { MeshError } from '../../../src/base/errors.ts';
import { canonicalIp } from '../../../src/base/ip.ts';
import { decodeProxyV2, encodeProxyV2, type ProxyHeader } from '../../../src/wire/proxy-v2.ts';

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
const SIGNATURE = '0d0a0d0a000d0a515549540a';

test('IPv4 without identity is 28 bytes, as the specification lays them out', () => {
  const header = encodeProxyV2({ source: { ip: '10.0.0.1', port: 258 }, destination: { ip: '10.0.0.2', port: 80 } });
  assert.equal(hex(header), `${SIGNATURE}2111000c0a0000010a00000201020050`);
});

test('IPv6 without identity is 52 bytes', () => {
  const header = encodeProxyV2({ source: { ip: 'fd00::1', port: 1 }, destination: { ip: 'fd00::2', port: 2 } });
  assert.equal(hex(header), `${SIGNATURE}21210024fd${'00'.repeat(14)}01fd${'00'.repeat(14)}0200010002`);
});

test('the identity follows as TLV 0xd0', () => {
  const header = encodeProxyV2({
    source: { ip: '10.0.0.1', port: 1 },
    destination: { ip: '10.0.0.2', port: 2 },
    identity: 'ab',
  });
  assert.equal(hex(header), `${SIGNATURE}211100110a0000010a00000200010002d000026162`);
});

test('addresses of two families are written as IPv6, the IPv4 one mapped', () => {
  const header = encodeProxyV2({ source: { ip: '10.0.0.1', port: 1 }, destination: { ip: 'fd00::2', port: 2 } });
  assert.equal(header[13], 0x21);
  assert.equal(hex(header.subarray(16, 32)), `${'00'.repeat(10)}ffff0a000001`);
  assert.equal(decodeProxyV2(header)?.header.source.ip, '10.0.0.1');
});

test('an identity over its limit is refused, not cut', () => {
  const source = { ip: '10.0.0.1', port: 1 };
  assert.throws(
    () => encodeProxyV2({ source, destination: source, identity: 'a'.repeat(2_049) }),
    (error: unknown) => error instanceof MeshError && error.code === 'CV-WIRE-TOO-LARGE',
  );
});

test('a TLV that is longer than its header is refused: what follows is no part of it', () => {
  const source = { ip: '10.0.0.1', port: 1 };
  const bytes = encodeProxyV2({ source, destination: source, identity: 'spiffe://a/ns/b/sa/c' });
  const LENGTH_AT = 30;
  bytes[LENGTH_AT] = (bytes[LENGTH_AT] ?? 0) + 1;
  assert.throws(() => decodeProxyV2(Uint8Array.of(...bytes, 0x2f)), { code: 'CV-WIRE-MALFORMED' });
});

const ip = fc.oneof(fc.ipV4(), fc.ipV6()).map((text) => canonicalIp(text) ?? '::');
const hostPort = fc.record({ ip, port: fc.nat(65_535) }, { noNullPrototype: true });
const headers: fc.Arbitrary<ProxyHeader> = fc.record(
  { source: hostPort, destination: hostPort, identity: fc.string({ unit: 'grapheme', maxLength: 60 }) },
  { requiredKeys: ['source', 'destination'], noNullPrototype: true },
);

test('what is encoded decodes to the same, and bytes behind it are left alone', () => {
  fc.assert(
    fc.property(headers, fc.uint8Array({ maxLength: 20 }), (header, rest) => {
      const bytes = encodeProxyV2(header);
      const decoded = decodeProxyV2(Uint8Array.from([...bytes, ...rest]));
      assert.deepEqual(decoded, { header, byteLength: bytes.length });
    }),
  );
});

test('every proper prefix of a header asks for more', () => {
  fc.assert(
    fc.property(headers, fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }), (header, share) => {
      const bytes = encodeProxyV2(header);
      assert.equal(decodeProxyV2(bytes.subarray(0, Math.floor(bytes.length * share))), undefined);
    }),
  );
});

test('any bytes give a header, a wish for more, or a MeshError', () => {
  const mutated = fc.tuple(headers, fc.nat(80), fc.nat(255)).map(([header, at, byte]) => {
    const bytes = encodeProxyV2(header);
    bytes[at % bytes.length] = byte;
    return bytes;
  });
  fc.assert(
    fc.property(fc.oneof(fc.uint8Array({ maxLength: 64 }), mutated), (bytes) => {
      try {
        const decoded = decodeProxyV2(bytes);
        assert(decoded === undefined || decoded.byteLength <= bytes.length);
      } catch (error) {
        assert(error instanceof MeshError, String(error));
      }
    }),
  );
});
