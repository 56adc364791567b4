/** The pages of the folders name each bound as the code has it: tables `what | bound | held by` against the constants. */
import assert from 'node:assert/strict';
import { existsSync, globSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';

const HEADER = '| what | bound | held by |';
const UNITS: Readonly<Record<string, number>> = { '': 1, ms: 1, s: 1_000, KiB: 1_024, MiB: 1_048_576 };

interface Limit {
  readonly what: string;
  readonly bound: string;
  /** File, then the name of a constant, or `name.property`. */
  readonly heldBy: readonly string[];
}

function limitsOf(page: string): Limit[] {
  const lines = readFileSync(page, 'utf8').split('\n');
  const start = lines.indexOf(HEADER);
  if (start < 0) return [];
  const rows = lines.slice(start + 2);
  const end = rows.findIndex((line) => !line.startsWith('|'));
  return rows.slice(0, end < 0 ? undefined : end).map((row) => {
    const [, what = '', bound = '', heldBy = ''] = row.split('|').map((cell) => cell.trim());
    return { what, bound, heldBy: [...heldBy.matchAll(/`([^`]+)`/g)].map(([, name = '']) => name) };
  });
}

/** `64 KiB` → 65536, `10 s` → 10000 (milliseconds), `4,096` → 4096. */
function read(bound: string): number | undefined {
  const [, digits, unit = ''] = /^([\d,.]+) ?([a-zA-Z]*)$/.exec(bound) ?? [];
  const factor = UNITS[unit];
  return digits === undefined || factor === undefined ? undefined : Number(digits.replaceAll(',', '')) * factor;
}

/** What `name` is set to in `source`: a number, or a product of numbers and other names of the same source. */
function valueIn(source: string, name: string): number {
  const [, expression] =
    new RegExp(`\\b${name}(?:: [\\w<>.]+)?(?: = |: )([A-Z\\d][\\w. *]*)[;,)} ]`).exec(source) ?? [];
  assert(expression !== undefined, `no ${name} with a number`);
  const factors = expression.trim().split(' * ');
  return factors.reduce((product, factor) => {
    const number = Number(factor.replaceAll('_', ''));
    return product * (Number.isNaN(number) ? valueIn(source, factor) : number);
  }, 1);
}

/** `RETRY.maxMs`: the property, looked for from where the object begins. */
function held(source: string, path: string): number {
  const [name = '', property] = path.split('.');
  if (property === undefined) return valueIn(source, name);
  const start = source.search(new RegExp(`\\b${name}(?:: \\w+)?(?: = |: )\\{`));
  assert(start >= 0, `no object ${name}`);
  return valueIn(source.slice(start), property);
}

for (const page of globSync('src/**/README.md').toSorted()) {
  for (const { what, bound, heldBy } of limitsOf(page)) {
    test(`${page}: ${what}: ${bound}`, () => {
      const [file = '', name = ''] = heldBy;
      const path = [join(dirname(page), file), join('src', file)].find(existsSync);
      assert(path !== undefined, `no file ${file}`);
      const value = held(readFileSync(path, 'utf8'), name);
      assert.equal(read(bound), name.endsWith('_MIB') ? value * 1_048_576 : value, `${path} ${name}`);
    });
  }
}

test('every folder that has bounds on its page is linked from ARCHITECTURE.md, and every link leads somewhere', () => {
  const text = readFileSync('ARCHITECTURE.md', 'utf8');
  const links = [...text.matchAll(/\]\(([^)#]+)[^)]*\)/g)].map(([, target = '']) => target);
  for (const page of globSync('src/**/README.md')) assert(links.includes(page), `${page} is not linked`);
  for (const target of links) assert(existsSync(target), `${target} does not exist`);
});
