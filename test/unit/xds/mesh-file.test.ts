import assert from 'node:assert/strict';
import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { MeshError } from '../../../src/base/errors.ts';
import type { LogFields } from '../../../src/base/log.ts';
import type { MeshState } from '../../../src/model/mesh-index.ts';
import { MeshFile } from '../../../src/xds/mesh-file.ts';
import { FakeClock } from '../../support/fake-clock.ts';

const mesh = (name: string): string =>
  `workloads:\n- {uid: ${name}, namespace: ns, workloadIps: [10.0.0.1], services: {}}\n`;

interface Harness extends Disposable {
  readonly path: string;
  readonly clock: FakeClock;
  readonly file: MeshFile;
  readonly meshes: MeshState[];
  readonly logged: (readonly [level: string, message: string, fields: LogFields | undefined])[];
  write(text: string | Uint8Array): void;
}

function harness(): Harness {
  const folder = mkdtempSync(join(tmpdir(), 'mesh-file-'));
  const path = join(folder, 'mesh.yaml');
  const clock = new FakeClock();
  const meshes: MeshState[] = [];
  const logged: Harness['logged'] = [];
  const at = (level: string) => (message: string, fields?: LogFields) => void logged.push([level, message, fields]);
  const log = { info: at('info'), warn: at('warn') };
  const file = new MeshFile({ kind: 'file', path }, { clock, log, onMesh: (state) => void meshes.push(state) });
  return {
    path,
    clock,
    file,
    meshes,
    logged,
    write(text) {
      writeFileSync(`${path}.new`, text);
      renameSync(`${path}.new`, path);
    },
    [Symbol.dispose]() {
      file[Symbol.dispose]();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

const uids = (state: MeshState | undefined): string[] => (state?.workloads ?? []).map(({ uid }) => uid);

/** Lets the watch look again: its poll needs no event from the file system. */
const POLL_MS = 10_000;

test('the file is loaded at start and each later version replaces the one before', () => {
  using h = harness();
  h.write(mesh('one'));
  h.file.start();
  assert.deepEqual(uids(h.file.mesh), ['one']);
  h.write(mesh('two'));
  h.clock.advance(POLL_MS);
  assert.deepEqual(h.meshes.map(uids), [['one'], ['two']]);
  assert.deepEqual(uids(h.file.mesh), ['two']);
});

test('a bad version is told once, the last good one stays, and the next good one is taken', () => {
  using h = harness();
  h.write(mesh('one'));
  h.file.start();
  const goodMs = h.file.state.lastLoadedMs;
  h.write(`${mesh('two')}  bad: [\n`);
  h.clock.advance(POLL_MS);
  h.clock.advance(POLL_MS);
  assert.deepEqual(h.meshes.map(uids), [['one']]);
  assert.deepEqual(uids(h.file.mesh), ['one']);
  assert.equal(h.file.state.lastLoadedMs, goodMs);
  assert.match(h.file.state.lastError ?? '', /mesh\.yaml:\d+:\d+: /);
  const warnings = h.logged.filter(([level]) => level === 'warn');
  assert.deepEqual(
    warnings.map(([, , fields]) => fields?.['reason']),
    ['CV-MESH-FILE'],
  );
  h.write(mesh('three'));
  h.clock.advance(POLL_MS);
  assert.deepEqual(uids(h.file.mesh), ['three']);
  assert.equal(h.file.state.lastError, undefined);
  assert.deepEqual(h.file.state.issues, []);
});

test('a file that vanishes leaves the last good version', () => {
  using h = harness();
  h.write(mesh('one'));
  h.file.start();
  rmSync(h.path);
  h.clock.advance(POLL_MS);
  assert.deepEqual(uids(h.file.mesh), ['one']);
  assert.match(h.file.state.lastError ?? '', /ENOENT/);
});

for (const [claim, content] of [
  ['a bad file', 'workloads: 1\n'],
  ['an empty file', ''],
  ['a file that is no UTF-8', Uint8Array.of(0x77, 0xff, 0xfe)],
  ['no file', undefined],
] as const) {
  test(`${claim} at start is an error that names the file, and nothing is watched`, () => {
    using h = harness();
    if (content !== undefined) h.write(content);
    assert.throws(
      () => h.file.start(),
      (error: unknown) => error instanceof MeshError && error.code === 'CV-MESH-FILE' && error.message.includes(h.path),
    );
    h.write(mesh('later'));
    h.clock.advance(POLL_MS);
    assert.deepEqual(h.meshes, []);
  });
}

test('a load is logged with its counts and what looks wrong in it', () => {
  using h = harness();
  h.write('workloads:\n- {uid: a, namespace: ns, workloadIps: [], services: {}, authorizationPolicies: [ns/gone]}\n');
  h.file.start();
  const [[level, message, fields] = []] = h.logged;
  assert.deepEqual([level, message], ['info', 'mesh file loaded']);
  assert.equal(fields?.['workloads'], 1);
  assert.match(String(fields?.['warnings']), /mesh\.yaml:2:\d+: .*ns\/gone/);
});

test('after dispose changes are not looked at', () => {
  using h = harness();
  h.write(mesh('one'));
  h.file.start();
  h.file[Symbol.dispose]();
  h.write(mesh('two'));
  h.clock.advance(POLL_MS);
  assert.deepEqual(h.meshes.map(uids), [['one']]);
});

test('a mesh given as text is loaded once, and a mistake in it names the setting', () => {
  const meshes: MeshState[] = [];
  const deps = { clock: new FakeClock(), log: {}, onMesh: (state: MeshState) => void meshes.push(state) };
  using good = new MeshFile({ kind: 'inline', name: 'LOCAL_XDS', text: mesh('one') }, deps);
  good.start();
  assert.deepEqual(meshes.map(uids), [['one']]);
  using bad = new MeshFile({ kind: 'inline', name: 'LOCAL_XDS', text: 'workloads: 7' }, deps);
  assert.throws(
    () => bad.start(),
    (error) => error instanceof MeshError && error.code === 'CV-MESH-FILE' && error.message.startsWith('LOCAL_XDS:1'),
  );
});
