/** Strict DER reader (X.690 §10) for hostile input: definite minimal lengths, one-byte tags, no recursion of its own. */
import { MeshError } from '../base/errors.ts';

export const TAG = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  oid: 0x06,
  utcTime: 0x17,
  generalizedTime: 0x18,
  sequence: 0x30,
  set: 0x31,
} as const;

export interface DerElement {
  readonly tag: number;
  /** The value, a view into the input. */
  readonly content: Uint8Array;
  /** Tag, length and value: what a signature covers. */
  readonly whole: Uint8Array;
}

export function malformed(what: string): MeshError {
  return new MeshError('CV-WIRE-MALFORMED', `not strict DER: ${what}`);
}

/** Walks the elements of one level. Every method throws `CV-WIRE-MALFORMED` instead of guessing. */
export class DerReader {
  readonly #bytes: Uint8Array;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  get isAtEnd(): boolean {
    return this.#at === this.#bytes.length;
  }

  /** Next element, whose tag must be `tag`. */
  read(tag: number, what: string): DerElement {
    const element = this.readAny(what);
    if (element.tag !== tag) throw malformed(`${what} has tag 0x${element.tag.toString(16)}`);
    return element;
  }

  /** Next element if it has this tag, else nothing is consumed. */
  readIf(tag: number, what: string): DerElement | undefined {
    return this.#bytes[this.#at] === tag ? this.readAny(what) : undefined;
  }

  readAny(what: string): DerElement {
    const start = this.#at;
    const tag = this.#byte(what);
    if ((tag & 0x1f) === 0x1f) throw malformed(`${what} has a multi-byte tag`);
    const length = this.#length(what);
    if (length > this.#bytes.length - this.#at) throw malformed(`${what} is longer than what contains it`);
    const content = this.#bytes.subarray(this.#at, this.#at + length);
    this.#at += length;
    return { tag, content, whole: this.#bytes.subarray(start, this.#at) };
  }

  end(what: string): void {
    if (!this.isAtEnd) throw malformed(`bytes after ${what}`);
  }

  #length(what: string): number {
    const first = this.#byte(what);
    if (first < 0x80) return first;
    const octets = first & 0x7f;
    // 0x80 is the indefinite form of BER. Three octets reach 16 MiB, far over what any caller accepts.
    if (octets === 0 || octets > 3) throw malformed(`${what} has a length of ${octets} octets`);
    let length = 0;
    for (let i = 0; i < octets; i++) length = length * 256 + this.#byte(what);
    if (length < 0x80 || length < 256 ** (octets - 1)) throw malformed(`${what} has a length that is not minimal`);
    return length;
  }

  #byte(what: string): number {
    const byte = this.#bytes[this.#at];
    if (byte === undefined) throw malformed(`${what} is cut short`);
    this.#at += 1;
    return byte;
  }
}

/** Non-negative INTEGER of at most `maxBytes` value bytes. */
export function unsignedInteger(content: Uint8Array, maxBytes: number, what: string): bigint {
  const [first, second] = content;
  if (first === undefined) throw malformed(`${what} is empty`);
  if (first >= 0x80) throw malformed(`${what} is negative`);
  if (first === 0 && second !== undefined && second < 0x80) throw malformed(`${what} is not minimal`);
  if (content.length > maxBytes + 1) throw malformed(`${what} is too long`);
  return BigInt(`0x${hexOf(content)}`);
}

/** Dotted form of an OBJECT IDENTIFIER. */
export function oidText(content: Uint8Array): string {
  const last = content.at(-1);
  if (last === undefined || last >= 0x80 || content.length > 32) throw malformed('object identifier');
  const arcs: number[] = [];
  let arc = 0;
  let isStart = true;
  for (const byte of content) {
    if (isStart && byte === 0x80) throw malformed('object identifier arc is not minimal');
    arc = arc * 128 + (byte & 0x7f);
    if (arc > Number.MAX_SAFE_INTEGER / 128) throw malformed('object identifier arc is too large');
    isStart = byte < 0x80;
    if (!isStart) continue;
    arcs.push(arc);
    arc = 0;
  }
  const [head = 0, ...rest] = arcs;
  const root = Math.min(2, Math.floor(head / 40));
  return [root, head - 40 * root, ...rest].join('.');
}

/** Bytes of a BIT STRING that is a whole number of octets, as keys and signatures are. */
export function bitStringOctets(content: Uint8Array, what: string): Uint8Array {
  if (content[0] !== 0) throw malformed(`${what} has unused bits`);
  return content.subarray(1);
}

function hexOf(bytes: Uint8Array): string {
  let hex = '';
  for (const byte of bytes) hex += byte.toString(16).padStart(2, '0');
  return hex;
}
