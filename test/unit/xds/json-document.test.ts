import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { readJson } from '../../../src/xds/json-document.ts';
import { issueText, parseMeshFile } from '../../../src/xds/local-file.ts';

/** Every path of a JSON value, depth first, with the value there. */
function* paths(value: unknown, path: readonly unknown[] = []): Generator<readonly [readonly unknown[], unknown]> {
  yield [path, value];
  if (Array.isArray(value)) for (const [i, item] of value.entries()) yield* paths(item, [...path, i]);
  else if (typeof value === 'object' && value !== null) {
    for (const [key, item] of Object.entries(value)) yield* paths(item, [...path, key]);
  }
}

test('the position of every value and key of any JSON is where it stands', () => {
  fc.assert(
    fc.property(fc.jsonValue({ maxDepth: 4 }), fc.constantFrom(undefined, 1, '\t'), (value, indent) => {
      const text = JSON.stringify(value, undefined, indent);
      const document = readJson(text);
      assert(document !== undefined);
      assert.deepEqual(document.duplicateKeys, []);
      for (const [path, item] of paths(document.value)) {
        const rest = text.slice(document.offsetOf(path));
        const written =
          typeof item === 'object' && item !== null ? (Array.isArray(item) ? '[' : '{') : JSON.stringify(item);
        assert(rest.startsWith(written), `${path.join('.')}: ${rest.slice(0, 40)}`);
        const key = path.at(-1);
        if (typeof key === 'string') assert(text.slice(document.offsetOf(path, true)).startsWith(JSON.stringify(key)));
      }
    }),
  );
});

test('a path that does not exist is shown where its last existing part is', () => {
  const text = '{"a": {"b": [1, 2]}}';
  const document = readJson(text);
  assert.equal(document?.offsetOf(['a', 'b', 7, 'c']), text.indexOf('['));
  assert.equal(document?.offsetOf(['x']), 0);
});

test('what is not JSON is left to the YAML reader', () => {
  for (const text of ['', '{a: 1}', '{"a": 1,}', '{"a": 1} # comment', "{'a': 1}"])
    assert.equal(readJson(text), undefined);
});

for (const [text, mark] of [
  ['{"workloads": [], "workloads": []}', '"workloads": []}'],
  ['{"a": {"b": 1, "c": {"b": 2}, "b": 3}}', '"b": 3'],
  ['[{"a": 1}, {"a": 1, "\\u0061": 2}]', '"\\u0061"'],
] as const) {
  test(`the second of two equal keys is found in ${text}`, () => {
    assert.deepEqual(
      readJson(text)?.duplicateKeys.map(({ offset }) => offset),
      [text.indexOf(mark)],
    );
  });
}

test('equal keys of sibling and nested objects are no duplicates', () => {
  assert.deepEqual(readJson('{"a": [{"a": 1}, {"a": 2}], "b": {"a": {"a": 3}}}')?.duplicateKeys, []);
});

test('a JSON mesh with a key said twice is refused at the second', () => {
  const result = parseMeshFile('{\n "policies": [],\n "policies": []\n}');
  assert(result.kind === 'refused');
  assert.match(
    issueText('m.json', result.issues[0] ?? { line: 0, column: 0, field: '', problem: '', cure: '' }),
    /^m\.json:3:2: key "policies" is there twice/,
  );
});

test('mistakes in JSON and in the same text as YAML are reported alike', () => {
  const text = JSON.stringify(
    {
      workloads: [
        { uid: 'a', namespace: 'ns', workloadIps: ['10.0.0.300'], services: { 'ns/web': { 80: 70_000 } }, x: 1 },
      ],
      policies: [{ name: 'p', namespace: 'ns', scope: 'Planet', action: 'Deny', dryRun: false, rules: [[[{}]]] }],
    },
    undefined,
    2,
  );
  // A comment makes it YAML.
  assert.deepEqual(parseMeshFile(text), parseMeshFile(`${text}\n# YAML\n`));
});

test('a mesh of 20,000 workloads as JSON is read, and a mistake in the last one is found', (t) => {
  const workloads = Array.from({ length: 20_000 }, (_, i) => ({
    uid: `lab//Pod/demo/p${i}`,
    name: `p${i}`,
    namespace: 'demo',
    workloadIps: [`10.${i >> 16}.${(i >> 8) & 255}.${i & 255}`],
    services: { 'demo/web.demo.svc.cluster.local': { 80: 8_080 } },
  }));
  const good = JSON.stringify({ workloads, services: [] });
  const started = performance.now();
  assert.equal(parseMeshFile(good).kind, 'mesh');
  t.diagnostic(`${Math.round(performance.now() - started)} ms for ${good.length} bytes`);
  const result = parseMeshFile(good.replace('"10.0.78.31"', '"10.0.78.31x"'));
  assert(result.kind === 'refused');
  const [issue] = result.issues;
  assert.equal(issue?.column, good.indexOf('"10.0.78.31"') + 1);
});

test('YAML over its limit is refused and told to be JSON', () => {
  const result = parseMeshFile(`workloads: []\n#${'x'.repeat(9 * 1024 * 1024)}`);
  assert(result.kind === 'refused');
  assert.match(result.issues[0]?.cure ?? '', /as JSON/);
});
