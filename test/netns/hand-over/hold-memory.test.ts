import assert from 'node:assert/strict';
import type { Duplex } from 'node:stream';
import { test } from 'node:test';
import { TestMesh } from '../../support/mesh.ts';
import { skipWithoutRoot } from '../../support/netns.ts';
import { echo } from '../../support/numbered.ts';
import { foreignStream } from './held-connection.ts';

const INTERVAL_MS = 50;

/** Says something all the time. */
function busy(client: Duplex): Disposable {
  const timer = setInterval(() => client.write('x'), INTERVAL_MS);
  return { [Symbol.dispose]: () => clearInterval(timer) };
}

test('an agent that was replaced and takes more memory than it may ends idle connections first', {
  skip: skipWithoutRoot,
  timeout: 120_000,
}, async () => {
  await using mesh = await TestMesh.start({
    nodes: { n1: ['client'], n3: ['outside'] },
    // Less than any process takes: each look finds it over the bound.
    env: { CULVERT_HOLD_MEMORY: '1' },
    flags: ['--hold', '10m', '--drain', '1s'],
  });
  mesh.serve('client', 8080, echo);
  const talking = await foreignStream(mesh, 'outside', 'client', 8080);
  const idle = await foreignStream(mesh, 'outside', 'client', 8080);
  using _talk = busy(talking);
  const firstEnd = Promise.race([
    new Promise((resolve) => talking.once('close', () => resolve('talking'))),
    new Promise((resolve) => idle.once('close', () => resolve('idle'))),
  ]);
  const giver = mesh.agent('n1');

  const heir = mesh.spawnAgent('n1', ['--take-over', 'true']);
  await heir.tookOver();

  // Each look takes an eighth of what is left, at least one.
  await giver.line(({ reason, left }) => reason === 'CV-HOLD' && left === 1, 'line that it is over its bound');
  assert.equal(await firstEnd, 'idle');
  giver.kill('SIGTERM');
  assert.equal(await giver.exited, 0);
  const gone = await heir.line(({ message }) => message === 'the agent before this one has ended', 'line of its end');
  assert.deepEqual([gone['held'], gone['cut']], [2, 2]);
});
