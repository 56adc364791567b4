import assert from 'node:assert/strict';
import { once } from 'node:events';
import type net from 'node:net';
import { test } from 'node:test';
import type { HostPort } from '../../../src/base/ip.ts';
import type { AgentProcess } from '../../support/agent-process.ts';
import { Faults } from '../../support/faults.ts';
import { replaceFile, TestMesh } from '../../support/mesh.ts';
import { ask } from '../../support/mesh-traffic.ts';
import { metricsOf } from '../../support/metric-text.ts';
import { skipWithoutRoot } from '../../support/netns.ts';
import { echo } from '../../support/numbered.ts';
import { until } from '../../support/until.ts';

const PORT = 8080;

interface HalfTaken {
  readonly giver: AgentProcess;
  readonly heir: AgentProcess;
  readonly to: HostPort;
  /** A connection that the heir has now. */
  readonly open: net.Socket;
}

/** A successor that has taken a connection, and cannot have the node: one pod cannot be captured, so that it is not ready. */
async function halfTaken(mesh: TestMesh, env: Readonly<Record<string, string>> = {}): Promise<HalfTaken> {
  mesh.serve('server', PORT, echo);
  const giver = mesh.agent('n2');
  const broken = { ...mesh.podRecord('server'), uid: 'uid-broken', name: 'broken', netns: '/run/netns/none' };
  replaceFile(mesh.podsFile('n2'), JSON.stringify({ pods: [mesh.podRecord('server'), broken] }));
  const to = { ip: mesh.pod('server').ip, port: PORT };
  const open = (await mesh.dial('outside', to)).resume();
  open.write('before');
  await once(open, 'data');
  const heir = mesh.spawnSecondAgent('n2', ['--take-over', 'true'], env);
  await mesh.captured('server', heir);
  await until('the connection has moved', async () => {
    return (await metricsOf(heir))('culvert_hand_over_connections_total', { fate: 'moved' }) === 1;
  });
  return { giver, heir, to, open };
}

/** The giver serves the pod again, and the heir goes on with what it has taken until that ends. */
async function eachHasItsOwn(mesh: TestMesh, { giver, heir, to, open }: HalfTaken, mark: number): Promise<void> {
  await giver.line(({ message }) => message.startsWith('the successor is gone'), 'line that it is gone', mark);
  // Its listeners are there again a moment after it has said so.
  await until('new connections are served', () =>
    ask(mesh, 'outside2', to, 'new').then(
      (answer) => answer === 'new',
      () => false,
    ),
  );
  assert.ok(heir.isRunning, 'it still has what it took');
  open.write('after');
  await once(open, 'data');
}

async function endsInOrder(mesh: TestMesh, { heir, to, open }: HalfTaken): Promise<void> {
  open.end();
  assert.equal((await heir.access('inbound', { bytes_recv: 'beforeafter'.length })).message, 'connection complete');
  await heir.exited;
  assert.equal(await ask(mesh, 'outside2', to, 'still'), 'still');
}

const OPTIONS = { nodes: { n2: ['server'], n3: ['outside', 'outside2'] }, flags: ['--drain', '2m'] } as const;
const privileged = { skip: skipWithoutRoot, timeout: 120_000 };

test(
  'a successor that is stopped before it has the node gives it back at once, and ends what it took in order',
  privileged,
  async () => {
    await using mesh = await TestMesh.start(OPTIONS);
    const taken = await halfTaken(mesh);
    const mark = taken.giver.lines.length;
    taken.heir.kill('SIGTERM');
    await eachHasItsOwn(mesh, taken, mark);
    await endsInOrder(mesh, taken);
    assert.equal(await taken.heir.exited, 0);
  },
);

test(
  'a successor that is given up keeps what it took until that ends, and then says why it has failed',
  privileged,
  async () => {
    await using mesh = await TestMesh.start(OPTIONS);
    using faults = new Faults();
    const taken = await halfTaken(mesh, faults.env);
    const mark = taken.giver.lines.length;
    await faults.inject('mute', 'main');
    await eachHasItsOwn(mesh, taken, mark);
    // Now it is ready, and wants the node.
    replaceFile(mesh.podsFile('n2'), JSON.stringify({ pods: [mesh.podRecord('server')] }));
    const said = await taken.heir.line(
      ({ message }) => message === 'the node was not taken over',
      'that it has failed',
    );
    assert.deepEqual([said['reason'], said['taken']], ['CV-HAND-OVER', 1]);
    await endsInOrder(mesh, taken);
    assert.equal(await taken.heir.exited, 1);
    assert.match(taken.heir.stderr.join('\n'), /CV-HAND-OVER/);
  },
);
