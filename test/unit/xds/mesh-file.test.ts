import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { MeshError } from '../../../src/base/errors.ts';
import type { LogFields } from '../../../src/base/log.ts';
import type { MeshState } from '../../../src/model/mesh-index.ts';
import { MeshFile } from '../../../src/xds/mesh-file.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { until } from '../../support/until.ts';

const mesh = (name: string): string =>
  `workloads:\n- {uid: ${name}, namespace: ns, workloadIps: [10.0.0.1], services: {}}\n`;

interface Harness extends Disposable {
  readonly path: string;
  readonly clock: FakeClock;
  readonly file: MeshFile;
  readonly meshes: MeshState[];
  readonly logged: (readonly [level: string, message: string, fields: LogFields | undefined])[];
  write(text: string | Uint8Array): void;
  /** Lets the watch look again, which needs no event from the file system, and waits until it has. */
  poll(): Promise<void>;
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
    async poll() {
      clock.advance(10_000);
      await setImmediate();
    },
    [Symbol.dispose]() {
      file[Symbol.dispose]();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

const uids = (state: MeshState | undefined): string[] => (state?.workloads ?? []).map(({ uid }) => uid);

test('the file is loaded at start and each later version replaces the one before', async () => {
  using h = harness();
  h.write(mesh('one'));
  h.file.start();
  assert.deepEqual(uids(h.file.mesh), ['one']);
  h.write(mesh('two'));
  await h.poll();
  assert.deepEqual(h.meshes.map(uids), [['one'], ['two']]);
  assert.deepEqual(uids(h.file.mesh), ['two']);
});

test('a bad version is told once, the last good one stays, and the next good one is taken', async () => {
  using h = harness();
  h.write(mesh('one'));
  h.file.start();
  const goodMs = h.file.state.lastLoadedMs;
  h.write(`${mesh('two')}  bad: [\n`);
  await h.poll();
  await h.poll();
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
  await h.poll();
  assert.deepEqual(uids(h.file.mesh), ['three']);
  assert.equal(h.file.state.lastError, undefined);
  assert.deepEqual(h.file.state.issues, []);
});

test('a large file is parsed elsewhere, with the same mistakes, and the last of several versions is taken', async () => {
  using h = harness();
  h.write(mesh('one'));
  h.file.start();
  const filler = `#${'x'.repeat(70_000)}\n`;
  for (const version of ['two', 'three', 'four']) {
    h.write(`${filler}${mesh(version)}`);
    h.clock.advance(10_000);
  }
  assert.deepEqual(uids(h.file.mesh), ['one'], 'nobody waits for it');
  await until('the last version is in force', () => uids(h.file.mesh)[0] === 'four');
  assert.equal(h.meshes.length <= 3, true);

  h.write(`${filler}workloads: 7\n`);
  h.clock.advance(10_000);
  await until('the bad version is refused', () => h.file.state.lastError !== undefined);
  assert.match(h.file.state.lastError ?? '', /mesh\.yaml:2:12: workloads: /);
  assert.deepEqual(uids(h.file.mesh), ['four']);
});

test('what is parsed elsewhere when the file is let go is dropped', async () => {
  using h = harness();
  h.write(mesh('one'));
  h.file.start();
  h.write(`#${'x'.repeat(70_000)}\n${mesh('two')}`);
  h.clock.advance(10_000);
  h.file[Symbol.dispose]();
  await once(process, 'worker').then(([thread]) => once(thread, 'exit'));
  assert.deepEqual(h.meshes.map(uids), [['one']]);
});

test('a file that vanishes leaves the last good version', async () => {
  using h = harness();
  h.write(mesh('one'));
  h.file.start();
  rmSync(h.path);
  await h.poll();
  assert.deepEqual(uids(h.file.mesh), ['one']);
  assert.match(h.file.state.lastError ?? '', /ENOENT/);
});

for (const [claim, content] of [
  ['a bad file', 'workloads: 1\n'],
  ['an empty file', ''],
  ['a file that is no UTF-8', Uint8Array.of(0x77, 0xff, 0xfe)],
  ['no file', undefined],
] as const) {
  test(`${claim} at start is an error that names the file, and nothing is watched`, async () => {
    using h = harness();
    if (content !== undefined) h.write(content);
    assert.throws(
      () => h.file.start(),
      (error: unknown) => error instanceof MeshError && error.code === 'CV-MESH-FILE' && error.message.includes(h.path),
    );
    h.write(mesh('later'));
    await h.poll();
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

test('after dispose changes are not looked at', async () => {
  using h = harness();
  h.write(mesh('one'));
  h.file.start();
  h.file[Symbol.dispose]();
  h.write(mesh('two'));
  await h.poll();
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
