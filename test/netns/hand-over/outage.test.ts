import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { AGENT_TOKEN } from '../../support/ca-server.ts';
import { Istiod } from '../../support/istiod.ts';
import { TestMesh } from '../../support/mesh.ts';
import { ask, dial, doubling } from '../../support/mesh-traffic.ts';
import { skipWithoutRoot } from '../../support/netns.ts';

const PODS = ['client', 'server'];

test('an agent takes over while control plane and CA are away and nothing is kept on disk: new connections work at once', {
  skip: skipWithoutRoot,
  timeout: 120_000,
}, async () => {
  await using undo = new AsyncDisposableStack();
  const folder = mkdtempSync(join(tmpdir(), 'culvert-outage-'));
  undo.defer(() => rmSync(folder, { recursive: true }));
  const address = join(folder, 'istiod.sock');
  const istiod = undo.use(await Istiod.start(address));
  const mesh = undo.use(
    await TestMesh.start({
      nodes: { n1: ['client'], n2: ['server'] },
      flags: ['--hold', '1m'],
      meshFlags: () => ['--xds-address', `unix://${address}`],
      certificateEnv: () => ({ CA_ADDRESS: `unix://${address}`, AUTH_TOKEN: AGENT_TOKEN, CULVERT_SNAPSHOT: 'false' }),
      beforeAgents: async (made) => istiod.tellPods(made, PODS),
    }),
  );
  mesh.serve('server', 8080, doubling);
  const to = { ip: mesh.pod('server').ip, port: 8080 };
  using open = await dial(mesh, 'client', to);
  await open.exchange('before');
  await istiod[Symbol.asyncDispose]();

  for (const node of ['n2', 'n1']) {
    const heir = mesh.spawnAgent(node, ['--take-over', 'true']);
    await heir.tookOver();
    assert.equal(await ask(mesh, 'client', to, node), `${node}${node}`);
    await open.exchange(node);
    const { mesh: source, certificates, isReady } = JSON.parse((await heir.get('/status')).body);
    assert.deepEqual([isReady, source.controlPlane.isConnected, source.controlPlane.isComplete], [true, false, true]);
    assert.deepEqual([certificates.total, certificates.unavailable], [1, 0]);
    assert.deepEqual(
      readdirSync(mesh.runFolder(node)).filter((name) => /snapshot|mesh/.test(name)),
      [],
    );
  }
});
