import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AGENT_POD, meshForFile } from '../../support/mesh.ts';
import { Client, dial, doubling } from '../../support/mesh-traffic.ts';
import { skipWithoutRoot } from '../../support/netns.ts';

const privileged = { skip: skipWithoutRoot, timeout: 60_000 };
const mesh = meshForFile({
  nodes: { n1: ['client'], n2: ['server'], n3: ['outside'] },
  env: AGENT_POD,
  mesh: (started) => ({
    workloads: [...started.workloads(), ...['n1', 'n2'].map((node) => started.agentRecord(node))],
  }),
});

/** R: connection refused. C: TCP connects, and a request gets no valid answer. H: an HTTP answer comes back. */
type Outcome = 'R' | 'C' | 'H';

const PORTS = [15_001, 15_006, 15_008, 15_080, 15_000, 15_020, 15_021] as const;

/** Port by port, in the order of `PORTS`. */
const TABLE: readonly (readonly [from: string, target: string, outcomes: string])[] = [
  ['client', 'the address of the agent', 'CCCCCHH'],
  ['client', 'its own address', 'CCCRRRR'],
  ['client', '127.0.0.1', 'CCCRRRR'],
  ['outside', 'the address of the agent', 'RRCRRHH'],
  ['outside', 'the address of a captured pod', 'CCCCCCC'],
];

function addressOf(from: string, target: string): string {
  if (target === '127.0.0.1') return target;
  if (target === 'its own address') return mesh().pod(from).ip;
  return target === 'the address of a captured pod' ? mesh().pod('server').ip : (mesh().lab.node('n1').ips[0] ?? '');
}

async function call(from: string, ip: string, port: number): Promise<Outcome> {
  const client = await mesh()
    .dial(from, { ip, port })
    .then(
      (socket) => new Client(socket),
      () => undefined,
    );
  if (client === undefined) return 'R';
  using _client = client;
  client.socket.write('GET /healthz/ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n');
  await client.ended();
  return client.text.startsWith('HTTP/1.1 ') ? 'H' : 'C';
}

for (const [from, target, outcomes] of TABLE) {
  const kind = from === 'outside' ? 'an uncaptured pod' : 'a captured pod';
  test(`${kind} calling every port of the agent at ${target} gets ${outcomes}`, privileged, async () => {
    const found = await Promise.all(PORTS.map((port) => call(from, addressOf(from, target), port)));
    assert.equal(found.join(''), outcomes, PORTS.join(' '));
  });
}

test('after all of that the mesh still serves, and no call has looped', privileged, async () => {
  const cpuBefore = mesh().agents.map((agent) => agent.cpuMs);
  using _app = mesh().serve('server', 8080, doubling);
  using client = await dial(mesh(), 'client', { ip: mesh().pod('server').ip, port: 8080 });
  assert.equal(await client.exchange('hello'), 'hellohello');
  for (const [i, agent] of mesh().agents.entries()) {
    assert.ok(agent.isRunning);
    assert.ok(agent.cpuMs - (cpuBefore[i] ?? 0) < 2_000, 'an agent is busy with itself');
    const { body } = await agent.get('/metrics', 15_020);
    assert.match(body, /^culvert_bugs_total 0$/m);
  }
});

test('a call of the agent’s own ports is logged with the reason', privileged, async () => {
  const [n1, n2] = [mesh().agent('n1'), mesh().agent('n2')];
  await call('client', '127.0.0.1', 15_001);
  await call('outside', mesh().pod('server').ip, 15_006);
  const own = (line: Readonly<Record<string, unknown>>): boolean => line['reason'] === 'CV-SELF-CALL';
  for (const agent of [n1, n2]) {
    const line = await agent.line(own, 'refused self-call');
    assert.equal(line.message, 'connection failed');
    assert.equal(line['error'], 'attempted recursive call to ourselves');
  }
});
