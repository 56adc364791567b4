/** Keeps `test/BEHAVIOURS.md` true: every test it names is in the file it names. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const ROOT = new URL('../../../', import.meta.url);
const rows = readFileSync(new URL('test/BEHAVIOURS.md', ROOT), 'utf8')
  .split('\n')
  .filter((line) => line.startsWith('| ') && !line.startsWith('| reference') && !line.startsWith('| claim'));

interface Reference {
  readonly file: string;
  readonly names: readonly string[];
}

/** Each path in backquotes with the quoted names that follow it. */
function referencesOf(row: string): Reference[] {
  const parts = row.split(/`(test\/[^`]+\.ts)`/).slice(1);
  return parts.flatMap((file, i) =>
    i % 2 === 1 ? [] : [{ file, names: [...(parts[i + 1] ?? '').matchAll(/"([^"]+)"/g)].map(([, name = '']) => name) }],
  );
}

/** The name is a whole string literal of the file. */
function hasLiteral(source: string, name: string): boolean {
  const escaped = name.replaceAll("'", "\\'");
  return [`'${escaped}'`, `"${name}"`, `\`${name}\``].some((literal) => source.includes(literal));
}

test('every row of the table of behaviours names a test or says that it is for later', () => {
  assert.ok(rows.length > 60);
  for (const row of rows) {
    const references = referencesOf(row);
    assert.ok(references.length > 0 || row.includes('*later*'), row);
    for (const { file, names } of references) assert.ok(names.length > 0, `${file} without a name in: ${row}`);
  }
});

test('every test that the table of behaviours names exists', () => {
  const missing = rows.flatMap(referencesOf).flatMap(({ file, names }) => {
    const path = fileURLToPath(new URL(file, ROOT));
    if (!existsSync(path)) return [file];
    const source = readFileSync(path, 'utf8');
    return names.filter((name) => !hasLiteral(source, name)).map((name) => `${file}: ${name}`);
  });
  assert.deepEqual(missing, []);
});

test('no behaviour of the reference is listed twice', () => {
  const names = rows
    .filter((row) => /^\| (\w+\/)*\w+\.rs |^\| \w+_\w+/.test(row))
    .map((row) => row.split('|')[1]?.trim());
  assert.equal(new Set(names).size, names.length);
});
