/** What reading a text as YAML or JSON gives: plain values with a way back to their positions, or what is broken. */
import type { Path } from './decode-value.ts';

export interface Position {
  /** From 1. */
  readonly line: number;
  /** From 1. */
  readonly column: number;
}

interface SyntaxProblem {
  readonly position: Position;
  readonly problem: string;
  readonly cure: string;
}

export type DocumentResult =
  | {
      readonly kind: 'document';
      readonly value: unknown;
      readonly positionOf: (path: Path, isKey?: boolean) => Position;
    }
  | { readonly kind: 'broken'; readonly problems: readonly SyntaxProblem[] };
