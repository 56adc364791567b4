/** README.md names every variable the program reads, and none that it does not. */
import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { resolveConfig } from '../../../src/agent/settings/config.ts';
import { IGNORED, REFUSED } from '../../../src/agent/settings/unsupported.ts';

const readme = readFileSync('README.md', 'utf8');

/** Where the code says which variable it reads: `{ env: 'X' }`, `{ meta: 'X' }`, `env['X']`, `withPrefix('X_')`, `.env('X')`. */
const READS = [
  /\benv: '([A-Z][A-Z0-9_]+)'/g,
  /\benv\['([A-Z][A-Z0-9_]+)'\]/g,
  /\bwithPrefix\('([A-Z][A-Z0-9_]+_)'\)/g,
  /\.env\('([A-Z][A-Z0-9_]+)'\)/g,
] as const;
/** Conventions of terminals, not settings of ours. */
const NOT_SETTINGS = new Set(['NO_COLOR']);

function section(name: string): string {
  const found = new RegExp(`<!-- ${name}:start -->\\n(.*?)<!-- ${name}:end -->`, 's').exec(readme)?.[1];
  return found ?? assert.fail(`README.md has no section ${name}`);
}

function variablesOfCode(): string[] {
  const names = globSync('src/**/*.ts').flatMap((file) => {
    const source = readFileSync(file, 'utf8');
    const plain = READS.flatMap((pattern) => [...source.matchAll(pattern)].map(([, name = '']) => name));
    const metas = [...source.matchAll(/\bmeta: '([A-Z][A-Z0-9_]+)'/g)].map(([, name = '']) => `ISTIO_META_${name}`);
    return [...plain, ...metas];
  });
  const prefixes = names.map((name) => (name.endsWith('_') ? `${name}*` : name));
  return [...new Set([...prefixes, 'ISTIO_META_*'])].filter((name) => !NOT_SETTINGS.has(name)).toSorted();
}

/** Whole names in backquotes of the first column. */
function variablesOfTable(): string[] {
  const cells = section('settings')
    .split('\n')
    .filter((line) => line.startsWith('| `'))
    .map((line) => line.split(' | ')[0] ?? '');
  return cells.flatMap((cell) => [...cell.matchAll(/`([A-Z][A-Z0-9_]+\*?)`/g)].map(([, name = '']) => name)).toSorted();
}

function table(header: string, rows: readonly (readonly string[])[]): string {
  return [header, ...rows].map((row) => (typeof row === 'string' ? row : `| ${row.join(' | ')} |`)).join('\n');
}

test('the table of settings names exactly the variables that the code reads', () => {
  assert.deepEqual(variablesOfTable(), variablesOfCode());
});

test('README.md holds the table of ignored variables', () => {
  const rows = Object.entries(IGNORED).map(([name, why]) => [`\`${name}\``, why]);
  assert.equal(section('ignored').trim(), table('| variable | why it changes nothing |\n|---|---|', rows));
});

test('README.md holds the table of refused values', () => {
  const rows = Object.entries(REFUSED).map(([name, { allowed, why }]) => [`\`${name}\``, `\`${allowed}\``, why]);
  assert.equal(section('refused').trim(), table('| variable | may be | why nothing else |\n|---|---|---|', rows));
});

const minimal = { NODE_NAME: 'n1', LOCAL_XDS_PATH: 'mesh.yaml', CULVERT_PODS: 'pods.yaml' };

test('what is ignored is accepted whatever it says, and named', () => {
  const result = resolveConfig(
    { ...minimal, ...Object.fromEntries(Object.keys(IGNORED).map((name) => [name, '?'])) },
    {},
  );
  assert(result.ok);
  assert.deepEqual(result.config.ignored, Object.keys(IGNORED));
});

for (const [name, { allowed }] of Object.entries(REFUSED)) {
  test(`${name} is accepted as ${allowed} and refused as anything else`, () => {
    assert(resolveConfig({ ...minimal, [name]: allowed }, {}).ok);
    const refused = resolveConfig({ ...minimal, [name]: allowed === 'true' ? 'false' : 'true' }, {});
    assert(!refused.ok);
    assert.equal(refused.issues[0]?.setting, name);
  });
}
