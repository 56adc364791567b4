import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { Duplex } from 'node:stream';
import { test } from 'node:test';
import type { AgentProcess } from '../../support/agent-process.ts';
import { TestMesh } from '../../support/mesh.ts';
import { metricsOf } from '../../support/metric-text.ts';
import { skipWithoutRoot } from '../../support/netns.ts';
import { echo } from '../../support/numbered.ts';
import { until } from '../../support/until.ts';
import { foreignStream } from './held-connection.ts';

const PORT = 8080;

async function exchange(client: Duplex, text: string): Promise<void> {
  client.write(text);
  let got = '';
  while (got.length < text.length) got += String(((await once(client, 'data')) as [Buffer])[0]);
  assert.equal(got, text);
}

async function held(agent: AgentProcess): Promise<readonly { readonly pid: number; readonly connections: number }[]> {
  const { body } = await agent.get('/status');
  return JSON.parse(body).handOver.held;
}

test('what cannot move is held, both agents tell of it, and SIGTERM ends it within the grace', {
  skip: skipWithoutRoot,
  timeout: 120_000,
}, async () => {
  await using mesh = await TestMesh.start({
    nodes: { n1: ['client'], n3: ['outside'] },
    flags: ['--hold', '10m', '--drain', '1s'],
  });
  for (const pod of ['client', 'outside']) mesh.serve(pod, PORT, echo);
  const foreign = await foreignStream(mesh, 'outside', 'client', PORT);
  const plain = (await mesh.dial('client', { ip: mesh.pod('outside').ip, port: PORT })).resume();
  await exchange(foreign, 'through a tunnel');
  await exchange(plain, 'before');
  const giver = mesh.agent('n1');

  const heir = mesh.spawnAgent('n1', ['--take-over', 'true']);
  const taken = await heir.tookOver();
  const left = await giver.line(({ message }) => message === 'handed over', 'line that it handed over');
  for (const line of [taken, left]) assert.deepEqual([line['moved'], line['held']], [1, 1]);
  await exchange(foreign, 'held');
  await exchange(plain, 'moved');
  await until('the new agent tells what is held', async () => (await held(heir)).length > 0);
  assert.deepEqual(
    (await held(heir)).map(({ pid, connections }) => [pid, connections]),
    [[giver.pid, 1]],
  );
  const metric = await metricsOf(heir);
  assert.equal(metric('culvert_held_connections'), 1);
  assert.equal(metric('culvert_hand_overs_total', { role: 'heir', result: 'complete' }), 1);
  assert.equal(metric('culvert_hand_over_connections_total', { fate: 'moved', direction: 'outbound' }), 1);

  const cut = new Promise((resolve) => foreign.once('close', resolve));
  giver.kill('SIGTERM');
  assert.equal(await giver.exited, 0);
  await cut;
  const over = await giver.line(({ message }) => message === 'hand-over is over', 'line that the hand-over is over');
  assert.deepEqual([over['moved'], over['held'], over['cut']], [1, 1, 1]);
  const gone = await heir.line(({ message }) => message === 'the agent before this one has ended', 'line of its end');
  assert.deepEqual([gone['pid'], gone['held'], gone['cut']], [giver.pid, 1, 1]);
  assert.deepEqual(await held(heir), []);
  await exchange(plain, 'after');
  plain.end();

  const end = await heir.access('outbound', { bytes_sent: 'beforemovedafter'.length });
  const lines = [...giver.lines, ...heir.lines].filter(({ message }) => message === 'connection complete');
  assert.deepEqual(
    lines.map((line) => [line['connection'] === end['connection'], line['reason'] ?? 'in order']),
    [
      [false, 'CV-HOLD'],
      [true, 'in order'],
    ],
  );
});
