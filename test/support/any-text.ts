/** Text of any code points, half of them ASCII: `fc.string({ unit: 'binary' })` spends 1.5 s on its tables in each file. */
import fc, { type Arbitrary, type StringSharedConstraints } from 'fast-check';

const LAST = 0x10_ffff;
const SURROGATES = { first: 0xd800, count: 0x800 } as const;

/** Half of a surrogate pair is no character. */
const character = fc.oneof(fc.nat(0x7f), fc.nat(LAST - SURROGATES.count)).map(
  (n) => String.fromCodePoint(n < SURROGATES.first ? n : n + SURROGATES.count),
  (text) => {
    const [only, ...rest] = String(text);
    if (only === undefined || rest.length > 0) throw new Error('one character');
    const n = only.codePointAt(0) ?? 0;
    return n < SURROGATES.first ? n : n - SURROGATES.count;
  },
);

export function anyText(constraints: StringSharedConstraints = {}): Arbitrary<string> {
  return fc.string({ ...constraints, unit: character });
}
