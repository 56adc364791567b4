import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { CidrMap } from '../../../src/base/cidr-map.ts';
import { type Cidr, ipBytes, parseCidr } from '../../../src/base/ip.ts';

function cidr(text: string): Cidr {
  const parsed = parseCidr(text);
  assert(parsed !== undefined, text);
  return parsed;
}

function bytes(text: string): Uint8Array {
  const parsed = ipBytes(text);
  assert(parsed !== undefined, text);
  return parsed;
}

test('all ranges around an address are found, the longest prefix first', () => {
  const map = new CidrMap(
    ['10.0.0.0/8', '0.0.0.0/0', '10.1.2.3/32', '10.1.0.0/16', '10.2.0.0/16'].map((t) => [cidr(t), t]),
  );
  const found = [...map.matches(bytes('10.1.2.3'))].flatMap(({ values }) => values);
  assert.deepEqual(found, ['10.1.2.3/32', '10.1.0.0/16', '10.0.0.0/8', '0.0.0.0/0']);
});

test('a range holds its first and last address and not the ones beside', () => {
  const map = new CidrMap([[cidr('10.1.16.0/20'), 1]]);
  const held = ['10.1.15.255', '10.1.16.0', '10.1.31.255', '10.1.32.0'].map((text) => map.has(bytes(text)));
  assert.deepEqual(held, [false, true, true, false]);
});

test('values of the same range are kept in their order', () => {
  const map = new CidrMap([
    [cidr('10.0.0.0/8'), 'a'],
    [cidr('10.9.9.9/8'), 'b'],
  ]);
  assert.deepEqual([...map.matches(bytes('10.1.1.1'))], [{ length: 8, values: ['a', 'b'] }]);
});

test('the families do not meet', () => {
  const all = new CidrMap([[cidr('::/0'), 6]]);
  assert.equal(all.has(bytes('10.0.0.1')), false);
  assert.equal(all.has(bytes('2001:db8::1')), true);
  assert.equal(new CidrMap([[cidr('0.0.0.0/0'), 4]]).has(bytes('::1')), false);
});

const v4 = fc.tuple(
  fc.constantFrom('10.0.0.1', '10.0.1.1', '10.128.0.1', '192.0.2.1', '0.0.0.0', '255.255.255.255'),
  fc.nat(32),
);
const v6 = fc.tuple(fc.constantFrom('fd00::1', 'fd00::2', 'fd80::1', '::', '::1', '2001:db8::1'), fc.nat(128));
const anyCidr = fc.oneof(v4, v6).map(([address, length]) => cidr(`${address}/${length}`));
const anyAddress = fc.oneof(fc.ipV4(), fc.ipV6(), fc.constantFrom('10.0.0.1', '10.0.1.77', 'fd00::1', '::', 'fd81::'));

/** Bit by bit. */
function contains(range: Cidr, address: Uint8Array): boolean {
  const bits = (of: Uint8Array): string => [...of].map((byte) => byte.toString(2).padStart(8, '0')).join('');
  return range.bytes.length === address.length && bits(address).startsWith(bits(range.bytes).slice(0, range.length));
}

test('it agrees with testing each range by itself', () => {
  fc.assert(
    fc.property(fc.array(anyCidr, { maxLength: 12 }), anyAddress, (ranges, text) => {
      const address = bytes(text);
      const map = new CidrMap(ranges.map((range, i) => [range, i]));
      const want = ranges.flatMap((range, i) => (contains(range, address) ? [i] : []));
      const found = [...map.matches(address)].flatMap(({ values }) => values);
      assert.deepEqual(
        found.toSorted((a, b) => a - b),
        want,
      );
      assert.equal(map.has(address), want.length > 0);
    }),
  );
});
