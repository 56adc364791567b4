import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { HostPort } from '../../../src/base/ip.ts';
import { identityOf, type TestMesh, uidOf } from '../../support/mesh.ts';
import { cniMeshForFile } from '../../support/mesh-cni.ts';
import { ask, Client, doubling } from '../../support/mesh-traffic.ts';
import { skipWithoutRoot } from '../../support/netns.ts';
import { foreignStream } from './held-connection.ts';

const PORT = 8080;
const PATIENCE_MS = 90_000;
/** Each client has one destination: see `test/support/upgrade.ts`. */
const { mesh, cni, cniPod } = cniMeshForFile({
  nodes: { n1: ['client', 'near'], n2: ['server', 'leaving', 'late'], n3: ['outside'] },
  enrolled: ['client', 'near', 'server', 'leaving'],
  flags: ['--hold', '10m'],
});

async function call(made: TestMesh, from: string, to: HostPort): Promise<void> {
  using client = new Client(await made.dial(from, to, PATIENCE_MS));
  client.socket.end('x');
  assert.equal(await client.ended(), 'end');
  assert.equal(client.text, 'xx');
}

/** Short connections, HBONE and plaintext in turn, until told to stop: what failed. */
function calling(made: TestMesh): () => Promise<readonly string[]> {
  const failed: string[] = [];
  let isOver = false;
  const done = (async () => {
    for (let count = 0; !isOver; count++) {
      const from = count % 2 === 0 ? 'client' : 'outside';
      const to = { ip: made.pod('server').ip, port: PORT };
      await call(made, from, to).catch((error: unknown) => failed.push(`${from}: ${String(error)}`));
      await sleep(20);
    }
  })();
  return async () => {
    isOver = true;
    await done;
    return failed;
  };
}

test('two agents of a node at its CNI agent: pods come to the new one, leave both, and no connection fails', {
  skip: skipWithoutRoot,
  timeout: 120_000,
}, async () => {
  const made = mesh();
  for (const pod of ['server', 'late', 'leaving']) made.serve(pod, PORT, doubling);
  const held = await foreignStream(made, 'outside', 'leaving', PORT);
  const giver = made.agent('n2');
  const stopCalls = calling(made);
  const before = cni('n2').connectionCount;

  const heir = made.spawnAgent('n2', ['--take-over', 'true']);
  await cni('n2').synced(before);
  assert.equal(cni('n2').connections.length, 2);
  await heir.tookOver();
  const mark = giver.lines.length;

  await cni('n2').enrol(cniPod('late'));
  await made.captured('late', heir);
  assert.equal(await ask(made, 'near', { ip: made.pod('late').ip, port: PORT }, 'late'), 'latelate');
  const line = await heir.access('inbound', { 'dst.workload': 'late' });
  assert.equal(line['src.identity'], identityOf('near'));
  held.write('still held');
  await once(held, 'data');

  const cut = new Promise((resolve) => held.once('close', resolve));
  await cni('n2').unenrol(uidOf('leaving'));
  await cut;
  assert.equal(await giver.exited, 0);
  await heir.line(({ message, uid }) => message === 'pod released' && uid === uidOf('leaving'), 'line of its release');
  assert.deepEqual(
    giver.lines.slice(mark).filter(({ message }) => message === 'pod captured'),
    [],
  );
  assert.deepEqual(await stopCalls(), []);
});
