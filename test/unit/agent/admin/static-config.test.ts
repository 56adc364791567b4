import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { staticConfig } from '../../../../src/agent/admin/static-config.ts';

const IN_FORCE = { workloads: ['in force'], services: [], policies: [] };
const FILE =
  'workloads:\n- uid: u1\n  name: n1\n  namespace: demo\n  serviceAccount: web\n  workloadIps: ["10.0.0.1"]\n  protocol: HBONE\n  node: n1\n  services: {}\n';

function withFile<T>(content: string, look: (path: string) => T): T {
  const folder = mkdtempSync(join(tmpdir(), 'culvert-static-'));
  try {
    const path = join(folder, 'mesh.yaml');
    writeFileSync(path, content);
    return look(path);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

test('the dump shows the mesh file as it is on disk', () => {
  const { workloads } = withFile(FILE, (path) => staticConfig({ kind: 'file', path }, () => IN_FORCE));
  assert.match(JSON.stringify([...(workloads ?? [])]), /"uid":"u1"/);
});

test('a large mesh file is shown as loaded: reading it again would hold up every connection', () => {
  const large = FILE + '# a comment\n'.repeat(10_000);
  assert.deepEqual(
    withFile(large, (path) => staticConfig({ kind: 'file', path }, () => IN_FORCE)),
    IN_FORCE,
  );
});

test('a mesh file that is gone or refused is shown as empty', () => {
  assert.deepEqual(
    staticConfig({ kind: 'file', path: '/nowhere/mesh.yaml' }, () => IN_FORCE),
    {},
  );
  assert.deepEqual(
    withFile('workloads: 7', (path) => staticConfig({ kind: 'file', path }, () => IN_FORCE)),
    {},
  );
});
