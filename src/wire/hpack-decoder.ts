/** HPACK decoder (RFC 7541): one per direction of a session. A throw is final: the peer's table and ours have parted. */
import { MeshError } from '../base/errors.ts';
import { decodeHuffman } from './hpack-huffman.ts';
import { STATIC_TABLE } from './hpack-static.ts';
import { DynamicTable, ENTRY_OVERHEAD_BYTES, type HeaderField } from './hpack-table.ts';

/** SETTINGS_HEADER_TABLE_SIZE when not sent (RFC 9113 §6.5.2); we never send another. */
const DEFAULT_TABLE_BYTES = 4096;
/** RFC 7541 §4.2: an encoder needs two at most, the lowest size and the final one. */
const MAX_SIZE_UPDATES = 2;
/** Five continuation octets hold 35 bits, more than any length or index we accept. */
const MAX_INTEGER_SHIFT = 28;

export interface HpackDecoderOptions {
  /** Bound of one header list as SETTINGS_MAX_HEADER_LIST_SIZE counts it: name + value + 32 per field. */
  readonly maxListBytes: number;
  readonly maxTableBytes?: number;
}

export class HpackDecoder {
  readonly #maxListBytes: number;
  readonly #maxTableBytes: number;
  readonly #table: DynamicTable;
  #block: Uint8Array = new Uint8Array(0);
  #at = 0;
  #listBytes = 0;

  constructor(options: HpackDecoderOptions) {
    this.#maxListBytes = options.maxListBytes;
    this.#maxTableBytes = options.maxTableBytes ?? DEFAULT_TABLE_BYTES;
    this.#table = new DynamicTable(this.#maxTableBytes);
  }

  /** Fields of one complete header block, in order. Octets become the characters U+0000 to U+00FF. */
  decode(block: Uint8Array): HeaderField[] {
    this.#block = block;
    this.#at = 0;
    this.#listBytes = 0;
    this.#readSizeUpdates();
    const fields: HeaderField[] = [];
    while (this.#at < block.length) fields.push(this.#readField());
    this.#block = new Uint8Array(0);
    return fields;
  }

  #readSizeUpdates(): void {
    for (let count = 0; ((this.#block[this.#at] ?? 0) & 0xe0) === 0x20; count++) {
      const bytes = this.#readInteger(5);
      if (bytes > this.#maxTableBytes) throw malformed('table size update over the limit we set');
      if (count >= MAX_SIZE_UPDATES) throw malformed('too many table size updates');
      this.#table.resize(bytes);
    }
  }

  #readField(): HeaderField {
    const first = this.#block[this.#at] ?? 0;
    if (first >= 0x80) return this.#account(this.#indexed(this.#readInteger(7)));
    if (first >= 0x40) {
      const field = this.#readLiteral(6);
      this.#table.insert(field);
      return field;
    }
    if (first >= 0x20) throw malformed('table size update after a field');
    return this.#readLiteral(4);
  }

  #readLiteral(prefixBits: number): HeaderField {
    const index = this.#readInteger(prefixBits);
    const name = index === 0 ? this.#readString() : this.#indexed(index).name;
    return this.#account({ name, value: this.#readString(name.length) });
  }

  #indexed(index: number): HeaderField {
    const fixed = STATIC_TABLE[index - 1];
    if (fixed !== undefined) return { name: fixed[0], value: fixed[1] };
    const field = index === 0 ? undefined : this.#table.at(index - STATIC_TABLE.length - 1);
    if (field === undefined) throw malformed('index outside the tables');
    return field;
  }

  #account(field: HeaderField): HeaderField {
    this.#listBytes += field.name.length + field.value.length + ENTRY_OVERHEAD_BYTES;
    if (this.#listBytes > this.#maxListBytes) throw this.#tooLarge();
    return field;
  }

  #readInteger(prefixBits: number): number {
    const max = (1 << prefixBits) - 1;
    let value = this.#octet() & max;
    if (value < max) return value;
    for (let shift = 0; shift <= MAX_INTEGER_SHIFT; shift += 7) {
      const octet = this.#octet();
      value += (octet & 0x7f) * 2 ** shift;
      if (octet < 0x80) return value;
    }
    throw malformed('integer too long');
  }

  /** `alreadyBytes` of the same field count too, so that no string is made that could not be accepted. */
  #readString(alreadyBytes = 0): string {
    const isHuffman = ((this.#block[this.#at] ?? 0) & 0x80) !== 0;
    const length = this.#readInteger(7);
    const start = this.#at;
    if (length > this.#block.length - start) throw malformed('string longer than its block');
    this.#at += length;
    const room = this.#maxListBytes - this.#listBytes - ENTRY_OVERHEAD_BYTES - alreadyBytes;
    if (room < 0) throw this.#tooLarge();
    if (isHuffman) {
      const octets = decodeHuffman(this.#block, start, this.#at, room);
      return latin1(octets, 0, octets.length);
    }
    if (length > room) throw this.#tooLarge();
    return latin1(this.#block, start, this.#at);
  }

  #octet(): number {
    const octet = this.#block[this.#at];
    if (octet === undefined) throw malformed('block ends inside a field');
    this.#at += 1;
    return octet;
  }

  #tooLarge(): MeshError {
    return new MeshError('CV-WIRE-TOO-LARGE', 'HPACK header list over the limit', { limit: this.#maxListBytes });
  }
}

function malformed(what: string): MeshError {
  return new MeshError('CV-WIRE-MALFORMED', `HPACK: ${what}`);
}

function latin1(octets: Uint8Array, start: number, end: number): string {
  return Buffer.prototype.latin1Slice.call(octets, start, end);
}
