/** `scripts/test.ts` runs every test file, once: a file that no phase takes would be green for ever. */
import assert from 'node:assert/strict';
import { existsSync, globSync, readFileSync } from 'node:fs';
import { test } from 'node:test';

const script = readFileSync('scripts/test.ts', 'utf8');

test('every test file belongs to exactly one phase', () => {
  const globs = [...script.matchAll(/globs: \['([^']+)'\]/g)].map(([, glob = '']) => glob);
  assert(globs.length > 1);
  const taken = globs.flatMap((glob) => globSync(glob)).toSorted();
  assert.deepEqual(taken, globSync('test/**/*.test.ts').toSorted());
});

test('every test file that the script names is there', () => {
  const named = [...script.matchAll(/'(test\/[\w/-]+\.test\.ts)'/g)].map(([, file = '']) => file);
  assert(named.length > 0);
  for (const file of named) assert(existsSync(file), file);
});
