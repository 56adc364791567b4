/** HPACK Huffman decoding (RFC 7541 §5.2, Appendix B), four bits at a time over a table built once from the code lengths. */
import { MeshError } from '../base/errors.ts';

/** Bits of the code of each octet, then of EOS. The code is canonical: lengths alone give every code of Appendix B. */
// biome-ignore format: sixteen per row, so that a row is the octets 0xN0 to 0xNF
const CODE_BITS: readonly number[] = [
  13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
  28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
   6, 10, 10, 12, 13,  6,  8, 11, 10, 10,  8, 11,  8,  6,  6,  6,
   5,  5,  5,  6,  6,  6,  6,  6,  6,  6,  7,  8, 15,  6, 12, 10,
  13,  6,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,
   7,  7,  7,  7,  7,  7,  7,  7,  8,  7,  8, 13, 19, 13, 14,  6,
  15,  5,  6,  5,  6,  5,  6,  6,  6,  5,  7,  7,  6,  6,  6,  5,
   6,  7,  6,  5,  5,  6,  7,  7,  7,  7,  7, 15, 11, 14, 13, 28,
  20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
  24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
  22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
  21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
  26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
  19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
  20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
  26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
  30,
];
const EOS = 256;
const LONGEST_CODE_BITS = 30;
/** Shortest code: five bits. A string of n octets decodes to at most n * 8 / 5. */
const SHORTEST_CODE_BITS = 5;
const NO_SYMBOL = 0xffff;
const FAIL = 0xffff;

interface Tree {
  /** Two children per node: a node number, or `LEAF + symbol`. */
  readonly children: number[];
}
const LEAF = 0x10000;

function buildTree(): Tree {
  const children = [0, 0];
  let code = 0;
  for (let bits = SHORTEST_CODE_BITS; bits <= LONGEST_CODE_BITS; bits++) {
    code *= 2;
    for (let symbol = 0; symbol <= EOS; symbol++) {
      if (CODE_BITS[symbol] !== bits) continue;
      insert(children, code, bits, symbol);
      code += 1;
    }
  }
  return { children };
}

function insert(children: number[], code: number, bits: number, symbol: number): void {
  let node = 0;
  for (let bit = bits - 1; bit > 0; bit--) {
    const slot = node * 2 + ((code >>> bit) & 1);
    if (children[slot] === 0) {
      children[slot] = children.length / 2;
      children.push(0, 0);
    }
    node = children[slot] ?? 0;
  }
  children[node * 2 + (code & 1)] = LEAF + symbol;
}

/** `[node * 16 + nibble]`: the next node (FAIL: an EOS was read) and the octet finished on the way. */
interface Steps {
  readonly next: Uint16Array;
  readonly symbol: Uint16Array;
  /** Nodes reached by up to seven one-bits only: the paddings that may end a string. */
  readonly mayEnd: Uint8Array;
}

function buildSteps(): Steps {
  const { children } = buildTree();
  const nodes = children.length / 2;
  const steps = {
    next: new Uint16Array(nodes * 16),
    symbol: new Uint16Array(nodes * 16).fill(NO_SYMBOL),
    mayEnd: new Uint8Array(nodes),
  };
  for (let node = 0; node < nodes; node++) {
    for (let nibble = 0; nibble < 16; nibble++) walkNibble(children, steps, node, nibble);
  }
  for (let node = 0, bits = 0; bits < 8; bits++) {
    steps.mayEnd[node] = 1;
    node = children[node * 2 + 1] ?? 0;
  }
  return steps;
}

function walkNibble(children: readonly number[], steps: Steps, from: number, nibble: number): void {
  let node = from;
  for (let bit = 3; bit >= 0; bit--) {
    const child = children[node * 2 + ((nibble >>> bit) & 1)] ?? 0;
    if (child === LEAF + EOS) {
      steps.next[from * 16 + nibble] = FAIL;
      return;
    }
    node = child;
    if (child >= LEAF) {
      steps.symbol[from * 16 + nibble] = child - LEAF;
      node = 0;
    }
  }
  steps.next[from * 16 + nibble] = node;
}

const STEPS = buildSteps();

/** Decodes `bytes[start, end)`. Throws on EOS, on wrong padding, and as soon as the result would pass `maxBytes`. */
export function decodeHuffman(bytes: Uint8Array, start: number, end: number, maxBytes: number): Uint8Array {
  const out = new Uint8Array(Math.min(maxBytes, Math.floor(((end - start) * 8) / SHORTEST_CODE_BITS)));
  const { next, symbol, mayEnd } = STEPS;
  let node = 0;
  let length = 0;
  for (let at = start * 2; at < end * 2; at++) {
    const octet = bytes[at >> 1] ?? 0;
    const step = node * 16 + ((at & 1) === 0 ? octet >> 4 : octet & 15);
    const emitted = symbol[step] ?? NO_SYMBOL;
    node = next[step] ?? FAIL;
    if (node === FAIL) throw new MeshError('CV-WIRE-MALFORMED', 'HPACK Huffman string contains EOS');
    if (emitted === NO_SYMBOL) continue;
    if (length === out.length) {
      throw new MeshError('CV-WIRE-TOO-LARGE', 'HPACK string over the header list limit', { limit: maxBytes });
    }
    out[length++] = emitted;
  }
  if (mayEnd[node] !== 1) throw new MeshError('CV-WIRE-MALFORMED', 'HPACK Huffman padding is not the start of EOS');
  return out.subarray(0, length);
}
