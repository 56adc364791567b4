/**
 * A JSON text (RFC 8259) as plain values, with duplicate keys found and the way back from a path to a position. For
 * large generated files: a few times faster than reading the same text as YAML, with a small part of its memory.
 */
import type { Path } from './decode-value.ts';

/** Offsets count UTF-16 units from 0. */
export interface JsonDocument {
  readonly value: unknown;
  readonly duplicateKeys: readonly { readonly offset: number; readonly key: string }[];
  readonly offsetOf: (path: Path, isKey?: boolean) => number;
}

/** Duplicate keys kept; one is enough to refuse a file. */
const MAX_DUPLICATES = 10;

/** `undefined` when `text` is not JSON. */
export function readJson(text: string): JsonDocument | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  const duplicateKeys: { offset: number; key: string }[] = [];
  /** Offset of each value two levels down, by its path: where a search inside it can start. */
  const starts = new Map<string, number>();
  const seen: Set<unknown>[] = [];
  walk(text, 0, {
    key: (path, offset) => {
      const keys = (seen[path.length] ??= new Set());
      const key = path.at(-1);
      if (keys.has(key) && duplicateKeys.length < MAX_DUPLICATES) duplicateKeys.push({ offset, key: String(key) });
      keys.add(key);
    },
    value: (path, offset) => {
      seen[path.length + 1] = new Set();
      if (path.length === 2) starts.set(path.join('/'), offset);
    },
  });
  return { value, duplicateKeys, offsetOf: (path, isKey = false) => offsetOf(text, starts, path, isKey) };
}

/** Start of the value or key at `path`; of the deepest part of it that exists when the rest does not. */
function offsetOf(text: string, starts: ReadonlyMap<string, number>, path: Path, isKey: boolean): number {
  const start = path.length > 2 ? starts.get(path.slice(0, 2).join('/')) : undefined;
  const base = start === undefined ? [] : path.slice(0, 2);
  const wanted = path.slice(base.length);
  let best = { depth: 0, offset: start ?? 0 };
  walk(text, start ?? 0, {
    key: (found, offset) => {
      if (isKey && isSamePath(found, wanted)) best = { depth: found.length, offset };
      return isKey && best.depth === wanted.length;
    },
    value: (found, offset) => {
      const isDeeper = found.length > best.depth || found.length === 0;
      if (isDeeper && found.length <= wanted.length && isSamePath(found, wanted.slice(0, found.length))) {
        best = { depth: found.length, offset };
      }
      return best.depth === wanted.length;
    },
  });
  return best.offset;
}

/** Called in the order of the text, with a path that is only valid during the call; `true` ends the walk. */
interface Visitor {
  readonly key: (path: Path, offset: number) => boolean | void;
  readonly value: (path: Path, offset: number) => boolean | void;
}

const STRING_END = /["\\]/g;

/** Visits the value that starts at or after `from`. `text` must be valid JSON there: nothing is checked. */
function walk(text: string, from: number, visitor: Visitor): void {
  const path: unknown[] = [];
  const isObject: boolean[] = [];
  let expectsKey = false;
  for (let at = from; at < text.length; at++) {
    const char = text[at];
    if (char === ' ' || char === '\n' || char === '\r' || char === '\t' || char === ':') continue;
    if (char === ',') {
      const last = path.length - 1;
      expectsKey = isObject[last] === true;
      if (!expectsKey) path[last] = Number(path[last]) + 1;
      continue;
    }
    if (char === '}' || char === ']') {
      path.pop();
      isObject.pop();
      expectsKey = false;
      if (path.length === 0) return;
      continue;
    }
    const end = char === '"' ? stringEnd(text, at) : at;
    if (expectsKey) {
      path[path.length - 1] = JSON.parse(text.slice(at, end + 1));
      if (visitor.key(path, at) === true) return;
      expectsKey = false;
      at = end;
      continue;
    }
    if (visitor.value(path, at) === true) return;
    if (char === '{' || char === '[') {
      isObject.push(char === '{');
      path.push(char === '{' ? undefined : 0);
      expectsKey = char === '{';
      continue;
    }
    at = char === '"' ? end : scalarEnd(text, at);
    if (path.length === 0) return;
  }
}

/** Offset of the closing quote of the string that opens at `at`. */
function stringEnd(text: string, at: number): number {
  STRING_END.lastIndex = at + 1;
  for (let match = STRING_END.exec(text); match !== null; match = STRING_END.exec(text)) {
    if (match[0] === '"') return match.index;
    STRING_END.lastIndex = match.index + 2;
  }
  return text.length;
}

/** Offset of the last character of a number or literal. */
function scalarEnd(text: string, at: number): number {
  let end = at;
  while (end + 1 < text.length && !',]} \n\r\t'.includes(text[end + 1] ?? ' ')) end++;
  return end;
}

function isSamePath(a: Path, b: Path): boolean {
  return a.length === b.length && a.every((key, i) => key === b[i]);
}
