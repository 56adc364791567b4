/** HPACK encoder without state (RFC 7541): static-table references and literals, never indexed, never Huffman-coded. */
import { MeshError } from '../base/errors.ts';
import { staticFieldIndex, staticNameIndex } from './hpack-static.ts';

/** A growing header block. Values are characters U+0000 to U+00FF, one octet each. */
export class HpackEncoder {
  #bytes = new Uint8Array(256);
  #length = 0;

  /** Tells the peer's decoder to keep no table; due once when it announces a table smaller than the default. */
  tableSizeZero(): void {
    this.#reserve(1);
    this.#put(0x20);
  }

  field(name: string, value: string): void {
    const exact = staticFieldIndex(name, value);
    this.#reserve(name.length + value.length + 20);
    if (exact !== undefined) {
      this.#integer(0x80, 7, exact);
      return;
    }
    const nameIndex = staticNameIndex(name);
    this.#integer(0x00, 4, nameIndex ?? 0);
    if (nameIndex === undefined) this.#string(name);
    this.#string(value);
  }

  /** The block so far, valid until the next call; starts a new one. */
  finish(): Uint8Array {
    const block = this.#bytes.subarray(0, this.#length);
    this.#length = 0;
    return block;
  }

  #integer(flags: number, prefixBits: number, value: number): void {
    const max = (1 << prefixBits) - 1;
    if (value < max) {
      this.#put(flags | value);
      return;
    }
    this.#put(flags | max);
    let rest = value - max;
    for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) this.#put((rest & 0x7f) | 0x80);
    this.#put(rest);
  }

  #string(text: string): void {
    this.#integer(0x00, 7, text.length);
    for (let i = 0; i < text.length; i++) {
      const octet = text.charCodeAt(i);
      if (octet > 0xff) {
        this.#length = 0;
        throw new MeshError('CV-WIRE-MALFORMED', 'HPACK: header text is not Latin-1');
      }
      this.#put(octet);
    }
  }

  #put(octet: number): void {
    this.#bytes[this.#length++] = octet;
  }

  #reserve(bytes: number): void {
    if (this.#length + bytes <= this.#bytes.length) return;
    const larger = new Uint8Array(Math.max(this.#bytes.length * 2, this.#length + bytes));
    larger.set(this.#bytes.subarray(0, this.#length));
    this.#bytes = larger;
  }
}
