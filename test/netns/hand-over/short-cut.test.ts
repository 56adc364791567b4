/** Same-node short cuts while the agent of their node is replaced. */
import assert from 'node:assert/strict';
import type net from 'node:net';
import { test } from 'node:test';
import type { ConnectionsView } from '../../../src/agent/admin/views.ts';
import type { AgentProcess } from '../../support/agent-process.ts';
import { identityOf, type MeshRecord, meshForFile } from '../../support/mesh.ts';
import { skipWithoutRoot } from '../../support/netns.ts';
import { echo, NumberedStream } from '../../support/numbered.ts';

const privileged = { skip: skipWithoutRoot, timeout: 120_000 };
const PORT = 8080;
const STREAMS = 24;
/** Each pod calls and is called: whichever is taken over first, it has a partner that comes later. */
const WAYS = [
  ['blue', 'red'],
  ['red', 'blue'],
  ['red', 'green'],
  ['green', 'blue'],
] as const;

const mesh = meshForFile(
  {
    nodes: { n1: ['blue', 'red', 'green'] },
    flags: ['--same-node-short-cut', 'accept-no-network-policy', '--workers', '2'],
  },
  (made) => {
    for (const pod of ['blue', 'red', 'green']) made.serve(pod, PORT, echo);
  },
);

function only(pod: string): MeshRecord {
  const rules = [[[{ principals: [{ Exact: identityOf(pod).replace('spiffe://', '') }] }]]];
  return { name: `only-${pod}`, namespace: 'demo', scope: 'Namespace', action: 'Allow', dryRun: false, rules };
}

interface Opened {
  readonly stream: NumberedStream;
  readonly socket: net.Socket;
  readonly from: string;
  readonly address: string;
}

async function openStreams(): Promise<readonly Opened[]> {
  const opening = Array.from({ length: STREAMS }, async (_, at) => {
    const [from, to] = WAYS[at % WAYS.length] ?? WAYS[0];
    const socket = await mesh().dial(from, { ip: mesh().pod(to).ip, port: PORT });
    const address = `${socket.localAddress}:${socket.localPort}`;
    return { stream: new NumberedStream(socket, 20), socket, from, address };
  });
  return await Promise.all(opening);
}

/** Also by a reset. */
function closed(socket: net.Socket): Promise<void> {
  return new Promise((resolve) => socket.once('close', () => resolve()));
}

async function replaced(): Promise<AgentProcess> {
  const former = mesh().agent('n1');
  const next = mesh().spawnAgent('n1', ['--take-over', 'true']);
  const taken = await next.tookOver();
  assert.deepEqual([taken['moved'], taken['held']], [STREAMS, 0]);
  assert.equal(await former.exited, 0);
  return next;
}

async function shortCutsOf(agent: AgentProcess): Promise<number> {
  const { open } = JSON.parse((await agent.get('/connections')).body) as ConnectionsView;
  return open.filter(({ protocol }) => protocol === 'SAMENODE').length;
}

test('short cuts move to the next agent, and to the one after it, without losing a byte', privileged, async () => {
  const former = mesh().agent('n1');
  const streams = await openStreams();
  const second = await replaced();
  const third = await replaced();
  for (const { stream } of streams) {
    const before = stream.received.records;
    while (stream.received.failure === undefined && stream.received.records < before + 5)
      await new Promise((next) => setTimeout(next, 10));
  }
  assert.deepEqual(
    streams.flatMap(({ stream }) => stream.received.failure ?? []),
    [],
  );
  assert.equal(await shortCutsOf(third), 2 * STREAMS);

  // Its identity went along: a policy still knows who calls.
  const mark = third.lines.length;
  const forbidden = streams.filter(({ from }) => from !== 'red').map(({ socket }) => closed(socket));
  await mesh().update({ policies: [only('red')] });
  const allowed = streams.filter(({ from }) => from === 'red');
  await Promise.all(forbidden);
  await Promise.all(allowed.map(({ stream }) => stream.stop()));
  assert.deepEqual(
    allowed.flatMap(({ stream }) => stream.received.failure ?? []),
    [],
  );
  for (const { address, from } of streams) {
    const [outbound, inbound] = [
      await third.access('outbound', { 'src.addr': address }, mark),
      await third.access('inbound', { 'src.addr': address }, mark),
    ];
    assert.equal(inbound['reason'], from === 'red' ? undefined : 'CV-POLICY-CHANGED');
    assert.equal(outbound['error'], undefined);
    assert.equal(outbound['bytes_sent'], inbound['bytes_recv']);
  }
  const lines = [former, second, third].flatMap((agent) => agent.lines);
  assert.equal(lines.filter(({ message }) => message === 'connection complete').length, 2 * STREAMS);
});
