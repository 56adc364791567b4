/** A settings file (YAML or JSON) taken whole or not at all: the error names the first mistake and says how many more there are. */
import { MeshError } from '../base/errors.ts';
import type { ReasonCode } from '../base/reasons.ts';
import { type Decoder, Issues, Place } from './decode-value.ts';
import type { Position } from './document-result.ts';
import { readDocument } from './read-document.ts';

interface Mistake extends Position {
  readonly problem: string;
  readonly cure: string;
}

export interface FileToDecode<T> {
  readonly text: string;
  /** Its path. */
  readonly file: string;
  readonly code: ReasonCode;
  readonly decode: Decoder<T>;
  /** What only the whole shows; asked when every part is right. */
  readonly check?: (value: T, issues: Issues) => void;
}

/** Throws `code` with `file:line:column`. */
export function decodeFile<T>({ text, file, code, decode, check }: FileToDecode<T>): T {
  const document = readDocument(text);
  if (document.kind === 'broken') {
    const mistakes = document.problems.map(({ position, problem, cure }) => ({ ...position, problem, cure }));
    throw refusal(code, file, mistakes);
  }
  const issues = new Issues();
  const value = decode(document.value, new Place(issues));
  if (issues.count === 0 && value !== undefined) check?.(value, issues);
  if (issues.count === 0 && value !== undefined) return value;
  throw refusal(
    code,
    file,
    issues.list.map(({ path, isKey, problem, cure }) => ({ ...document.positionOf(path, isKey), problem, cure })),
  );
}

function refusal(code: ReasonCode, file: string, mistakes: readonly Mistake[]): MeshError {
  const [first, ...others] = mistakes.toSorted((a, b) => a.line - b.line || a.column - b.column);
  const { line, column, problem, cure } = first ?? { line: 1, column: 1, problem: 'unreadable', cure: 'write it anew' };
  const more = others.length === 0 ? '' : ` (and ${others.length} more)`;
  const message = `${file}:${line}:${column}: ${problem}; ${cure}${more}`;
  return new MeshError(code, message, { file, line, column });
}
