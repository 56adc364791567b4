/** A YAML 1.2 text as plain values, and the way back from a path in them to line and column. */
import {
  type CollectionTag,
  type Document,
  isAlias,
  isMap,
  isNode,
  isScalar,
  isSeq,
  LineCounter,
  type Node,
  parseDocument,
  type ScalarTag,
  visit,
} from 'yaml';
import { messageOf } from '../base/errors.ts';
import type { Path } from './decode-value.ts';
import type { DocumentResult, Position } from './document-result.ts';

/**
 * How much aliases may multiply a document: values they stand for, in total. Bounds "billion laughs" files, and leaves
 * room for a list that repeats one anchor.
 */
const MAX_ALIAS_COUNT = 10_000;

const CURE = 'correct the YAML or JSON';

/** `!Exact x` is `{Exact: x}`: how ztunnel writes the matches of a policy in YAML, and the one way it reads them there. */
const MATCH_TAGS: readonly (ScalarTag | CollectionTag)[] = [
  ...['Exact', 'Prefix', 'Suffix'].map((name) => ({
    tag: `!${name}`,
    resolve: (value: string) => new Map([[name, value]]),
  })),
  { tag: '!Presence', collection: 'seq', resolve: ({ items }) => new Map([['Presence', items]]) },
];

/** Mappings become `Map`, so that no key can touch a prototype and `80` stays apart from `"80"`. Never throws. */
export function readYaml(text: string): DocumentResult {
  const lines = new LineCounter();
  let document: Document.Parsed | undefined;
  try {
    document = parseDocument(text, {
      lineCounter: lines,
      version: '1.2',
      merge: false,
      prettyErrors: false,
      customTags: [...MATCH_TAGS],
    });
    if (document.errors.length > 0) {
      const problems = document.errors.map(({ pos, message }) => ({
        position: at(lines, pos[0]),
        problem: message,
        cure: CURE,
      }));
      return { kind: 'broken', problems };
    }
    const value: unknown = document.toJS({ mapAsMap: true, maxAliasCount: MAX_ALIAS_COUNT });
    const parsed = document;
    const positionOf = (path: Path, isKey = false): Position => at(lines, offsetOf(parsed, path, isKey));
    return { kind: 'document', value, positionOf };
  } catch (error) {
    // What the library throws: too many aliases, an alias to nothing, or a nesting deeper than the stack.
    const position = at(lines, document === undefined ? 0 : (danglingAlias(document) ?? 0));
    return { kind: 'broken', problems: [{ position, problem: messageOf(error), cure: CURE }] };
  }
}

/** Where an alias stands whose anchor has not been set before it. */
function danglingAlias(document: Document.Parsed): number | undefined {
  const anchors = new Set<string>();
  let offset: number | undefined;
  visit(document, {
    Node: (_key, node) => {
      if (!isAlias(node)) {
        if (node.anchor !== undefined) anchors.add(node.anchor);
        return undefined;
      }
      if (anchors.has(node.source)) return undefined;
      offset = startOf(node);
      return visit.BREAK;
    },
  });
  return offset;
}

function at(lines: LineCounter, offset: number): Position {
  const { line, col } = lines.linePos(offset);
  return { line: Math.max(1, line), column: Math.max(1, col) };
}

/** Start of the value at `path`, or of its key; of the last part that exists when the rest does not. */
function offsetOf(document: Document.Parsed, path: Path, isKey: boolean): number {
  let node: unknown = document.contents;
  let offset = startOf(node) ?? 0;
  for (const [depth, key] of path.entries()) {
    const step = child(document, node, key);
    if (step === undefined) return offset;
    const isLast = depth === path.length - 1;
    const keyAt = startOf(step.key);
    offset = (isLast && isKey ? keyAt : startOf(step.value)) ?? keyAt ?? offset;
    node = step.value;
  }
  return offset;
}

function child(document: Document, parent: unknown, key: unknown): { key?: unknown; value: unknown } | undefined {
  const node = isAlias(parent) ? parent.resolve(document) : parent;
  if (isSeq(node) && typeof key === 'number') return { value: node.items[key] };
  if (!isMap(node)) return undefined;
  return node.items.find((pair) => (isScalar(pair.key) ? pair.key.value : pair.key) === key);
}

function startOf(node: unknown): number | undefined {
  const range: Node['range'] = isNode(node) ? node.range : undefined;
  return range?.[0];
}
