/** Compares a mesh file with what ztunnel reads (`test/conformance/mesh-file.schema.yaml`). */
import { type CollectionTag, parse, type ScalarTag } from 'yaml';
import { schemaOf } from './json-schema.ts';

/** `!Exact x` becomes `{'!Exact': x}`, which `{Exact: x}` is not. */
const TAGS: readonly (ScalarTag | CollectionTag)[] = [
  ...['!Exact', '!Prefix', '!Suffix'].map((tag) => ({ tag, resolve: (text: string) => new Map([[tag, text]]) })),
  { tag: '!Presence', collection: 'seq', resolve: ({ items }) => new Map([['!Presence', items]]) },
];

const deviations = schemaOf('mesh-file');

/** One line per deviation; empty = ztunnel would load it. */
export function meshFileErrors(text: string): readonly string[] {
  return deviations(plain(parse(text, { mapAsMap: true, customTags: [...TAGS] })));
}

/** Maps become objects; a number in quotes keeps them as a key, since to ztunnel it is no number. */
function plain(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(plain);
  if (!(value instanceof Map)) return value;
  return Object.fromEntries([...value].map(([key, item]) => [keyText(key), plain(item)]));
}

function keyText(key: unknown): string {
  return typeof key === 'string' && /^\d+$/.test(key) ? JSON.stringify(key) : String(key);
}
