/** Values by address range, found by address in time that grows with the number of prefix lengths, not of ranges. */
import type { Cidr } from './ip.ts';
import { append, detach } from './multimap.ts';

/** Network bits of an address as one key: a number for IPv4, a bigint for IPv6. */
type PrefixKey = number | bigint;

interface LengthTable<V> {
  readonly length: number;
  readonly values: Map<PrefixKey, V[]>;
}

/** IPv4 and IPv6 ranges never match each other. */
export class CidrMap<V> {
  /** Longest prefix first; no table is empty. */
  readonly #v4: LengthTable<V>[] = [];
  readonly #v6: LengthTable<V>[] = [];

  constructor(entries: Iterable<readonly [Cidr, V]> = []) {
    for (const [cidr, value] of entries) this.add(cidr, value);
  }

  get isEmpty(): boolean {
    return this.#v4.length === 0 && this.#v6.length === 0;
  }

  add({ bytes, length }: Cidr, value: V): void {
    const tables = this.#tables(bytes);
    let table = tables.find((candidate) => candidate.length === length);
    if (table === undefined) {
      table = { length, values: new Map() };
      tables.push(table);
      tables.sort((a, b) => b.length - a.length);
    }
    append(table.values, prefixKey(bytes, length), value);
  }

  /** Takes `value` out of exactly this range; does nothing when it is not there. */
  delete({ bytes, length }: Cidr, value: V): void {
    const tables = this.#tables(bytes);
    const at = tables.findIndex((candidate) => candidate.length === length);
    const table = tables[at];
    if (table === undefined) return;
    detach(table.values, prefixKey(bytes, length), value);
    if (table.values.size === 0) tables.splice(at, 1);
  }

  /** All values whose range holds `address` (4 or 16 bytes), longest prefix first. */
  *matches(address: Uint8Array): Generator<{ readonly length: number; readonly values: readonly V[] }> {
    for (const { length, values } of this.#tables(address)) {
      const found = values.get(prefixKey(address, length));
      if (found !== undefined) yield { length, values: found };
    }
  }

  has(address: Uint8Array): boolean {
    return this.#tables(address).some(({ length, values }) => values.has(prefixKey(address, length)));
  }

  #tables(address: Uint8Array): LengthTable<V>[] {
    return address.length === 4 ? this.#v4 : this.#v6;
  }
}

function prefixKey(bytes: Uint8Array, length: number): PrefixKey {
  if (bytes.length === 4) {
    const [a = 0, b = 0, c = 0, d = 0] = bytes;
    // A shift by 32 would be a shift by 0, so the empty prefix is its own case.
    return length === 0 ? 0 : ((a << 24) | (b << 16) | (c << 8) | d) >>> (32 - length);
  }
  let value = 0n;
  for (const byte of bytes) value = (value << 8n) | BigInt(byte);
  return value >> BigInt(128 - length);
}
