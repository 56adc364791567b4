/** Reads a text as JSON where it is JSON, and as YAML otherwise: the second costs much more time and memory. */
import type { DocumentResult, Position } from './document-result.ts';
import { readJson } from './json-document.ts';
import { readYaml } from './yaml-document.ts';

/**
 * Largest YAML text, characters. The parser needs about 100 bytes of memory and 0.6 µs for each (measured: 4 MB, 400 MB,
 * 2.5 s).
 */
const MAX_YAML_CHARS = 8 * 1024 * 1024;

/** Never throws. */
export function readDocument(text: string): DocumentResult {
  const json = text.trimStart().startsWith('{') ? readJson(text) : undefined;
  if (json === undefined) return text.length > MAX_YAML_CHARS ? tooLarge(text.length) : readYaml(text);
  const lines = lineStarts(text);
  const problems = json.duplicateKeys.map(({ offset, key }) => ({
    position: positionAt(lines, offset),
    problem: `key ${JSON.stringify(key.slice(0, 80))} is there twice: map keys must be unique`,
    cure: 'keep one of them',
  }));
  if (problems.length > 0) return { kind: 'broken', problems };
  const positionOf = (path: readonly unknown[], isKey = false): Position =>
    positionAt(lines, json.offsetOf(path, isKey));
  return { kind: 'document', value: json.value, positionOf };
}

function tooLarge(chars: number): DocumentResult {
  const problem = `YAML text has ${chars} characters, over the limit of ${MAX_YAML_CHARS}`;
  return {
    kind: 'broken',
    problems: [{ position: { line: 1, column: 1 }, problem, cure: 'write a file of this size as JSON' }],
  };
}

/** Offset of the first character of each line. */
function lineStarts(text: string): readonly number[] {
  const starts = [0];
  for (let at = text.indexOf('\n'); at >= 0; at = text.indexOf('\n', at + 1)) starts.push(at + 1);
  return starts;
}

function positionAt(starts: readonly number[], offset: number): Position {
  let low = 0;
  let high = starts.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if ((starts[middle] ?? 0) <= offset) low = middle;
    else high = middle - 1;
  }
  return { line: low + 1, column: offset - (starts[low] ?? 0) + 1 };
}
