import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { MeshError } from '../../../src/base/errors.ts';
import { canonicalIp, ipBytes } from '../../../src/base/ip.ts';
import {
  readSocksGreeting,
  readSocksRequest,
  type SocksMessage,
  socksMethod,
  socksReply,
} from '../../../src/wire/socks5.ts';

const bytes = (hex: string): Uint8Array => new Uint8Array(Buffer.from(hex.replaceAll(' ', ''), 'hex'));

const requests: readonly { readonly name: string; readonly hex: string; readonly want: object }[] = [
  {
    name: 'an IPv4 address',
    hex: '05 01 00 01 0a600001 0050',
    want: { command: 1, target: { kind: 'address', ip: '10.96.0.1', port: 80 } },
  },
  {
    name: 'an IPv6 address',
    hex: `05 01 00 04 fd96${'00'.repeat(13)}01 01bb`,
    want: { command: 1, target: { kind: 'address', ip: 'fd96::1', port: 443 } },
  },
  {
    name: 'an IPv4 address written as IPv6',
    hex: `05 01 00 04 ${'00'.repeat(10)}ffff0a600001 0050`,
    want: { command: 1, target: { kind: 'address', ip: '10.96.0.1', port: 80 } },
  },
  {
    name: 'a host name, with its final dot',
    hex: `05 01 00 03 08 ${Buffer.from('web.shop').toString('hex')} 0050`,
    want: { command: 1, target: { kind: 'hostname', hostname: 'web.shop', port: 80 } },
  },
  {
    name: 'an address in text, which is an address',
    hex: `05 01 00 03 09 ${Buffer.from('10.96.0.1').toString('hex')} 0050`,
    want: { command: 1, target: { kind: 'address', ip: '10.96.0.1', port: 80 } },
  },
  {
    name: 'an IPv6 address in text, which is an address',
    hex: `05 01 00 03 07 ${Buffer.from('fd96::1').toString('hex')} 0050`,
    want: { command: 1, target: { kind: 'address', ip: 'fd96::1', port: 80 } },
  },
  {
    name: 'another command than CONNECT, for the owner to refuse',
    hex: '05 03 00 01 0a600001 0050',
    want: { command: 3, target: { kind: 'address', ip: '10.96.0.1', port: 80 } },
  },
];

for (const { name, hex, want } of requests) {
  test(`a request for ${name} is read`, () => {
    const message = bytes(hex);
    assert.deepEqual(readSocksRequest(message), { value: want, byteLength: message.length });
  });
}

const malformed: readonly (readonly [name: string, hex: string])[] = [
  ['of version 4', '04 01 00 50 0a600001 00'],
  ['whose reserved octet is set', '05 01 01 01 0a600001 0050'],
  ['for an unknown type of address', '05 01 00 02'],
  ['for port 0', '05 01 00 01 0a600001 0000'],
  ['for a name of nothing', '05 01 00 03 00 0050'],
  ['for a name with a space', '05 01 00 03 03 612062 0050'],
  ['for a name with a colon that is no address', '05 01 00 03 03 613a62 0050'],
  ['for a broken IPv4 address in text', `05 01 00 03 05 ${Buffer.from('10.96').toString('hex')} 0050`],
];

for (const [name, hex] of malformed) {
  test(`a request ${name} is refused`, () => {
    assert.throws(() => readSocksRequest(bytes(hex)), { code: 'CV-WIRE-MALFORMED' });
  });
}

test('a greeting names the methods that are offered', () => {
  assert.deepEqual(readSocksGreeting(bytes('05 02 00 02 ff')), { value: [0, 2], byteLength: 4 });
  assert.deepEqual(readSocksGreeting(bytes('05 00')), { value: [], byteLength: 2 });
  assert.throws(() => readSocksGreeting(bytes('47')), { code: 'CV-WIRE-MALFORMED' });
});

test('replies are as the specification lays them out', () => {
  assert.equal(Buffer.from(socksMethod(0)).toString('hex'), '0500');
  assert.equal(Buffer.from(socksReply(0)).toString('hex'), '05000001000000000000');
  assert.equal(Buffer.from(socksReply(5)).toString('hex'), '05050001000000000000');
});

const port = fc.integer({ min: 1, max: 65_535 });
const ip = fc.oneof(fc.ipV4(), fc.ipV6()).map((text) => canonicalIp(text) ?? '::');
const target = fc.oneof(
  fc.record({ kind: fc.constant('address' as const), ip, port }),
  fc.record({ kind: fc.constant('hostname' as const), hostname: fc.domain(), port }),
);

/** A request as a client writes it. */
function encoded(
  wanted: { kind: 'address'; ip: string; port: number } | { kind: 'hostname'; hostname: string; port: number },
) {
  const tail = [wanted.port >> 8, wanted.port & 0xff];
  if (wanted.kind === 'hostname')
    return Uint8Array.from([5, 1, 0, 3, wanted.hostname.length, ...Buffer.from(wanted.hostname), ...tail]);
  const address = ipBytes(wanted.ip) ?? new Uint8Array();
  return Uint8Array.from([5, 1, 0, address.length === 4 ? 1 : 4, ...address, ...tail]);
}

test('what a client wants is read from its first byte to its last, and not before, and nothing behind it', () => {
  fc.assert(
    fc.property(target, fc.uint8Array({ maxLength: 20 }), (wanted, rest) => {
      const request = encoded(wanted);
      for (let length = 0; length < request.length; length++) {
        assert.equal(readSocksRequest(request.subarray(0, length)), undefined);
      }
      const read = readSocksRequest(Uint8Array.from([...request, ...rest]));
      assert.deepEqual(read, { value: { command: 1, target: { ...wanted } }, byteLength: request.length });
    }),
  );
});

test('any bytes give a message, a wait for more below the longest one, or a MeshError', () => {
  const readers: readonly ((input: Uint8Array) => SocksMessage<unknown> | undefined)[] = [
    readSocksGreeting,
    readSocksRequest,
  ];
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), fc.boolean(), (input, isVersion5) => {
      if (isVersion5 && input.length > 0) input[0] = 5;
      for (const read of readers) {
        try {
          const message = read(input);
          if (message === undefined) assert(input.length < 262);
          else assert(message.byteLength <= input.length);
        } catch (error) {
          assert(error instanceof MeshError, String(error));
        }
      }
    }),
  );
});
