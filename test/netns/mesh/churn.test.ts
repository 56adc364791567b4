/** What must hold however connections come and go: one line each, nothing left behind. */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { AgentProcess, LogLine } from '../../support/agent-process.ts';
import { meshForFile } from '../../support/mesh.ts';
import { dial, doubling } from '../../support/mesh-traffic.ts';
import { metricsOf } from '../../support/metric-text.ts';
import { skipWithoutRoot } from '../../support/netns.ts';
import { seededRandom } from './transfer.ts';

const privileged = { skip: skipWithoutRoot, timeout: 120_000 };
const CONNECTIONS = 1_200;
const AT_ONCE = 40;
const WARM_UP = 20;
const OPEN = 8001;
const CLOSED = 8002;
const DENIED = 8003;
const policy = { name: 'no', namespace: 'demo', scope: 'Namespace', action: 'Deny', dryRun: false };
const mesh = meshForFile({
  nodes: { n1: ['client'], n2: ['server'] },
  mesh: () => ({ policies: [{ ...policy, rules: [[[{ destinationPorts: [DENIED] }]]] }] }),
});

/** One short life: ended in order, reset by us, left at once, or refused at the other side. */
async function live(random: () => number): Promise<void> {
  const port = random() < 0.7 ? OPEN : random() < 0.5 ? CLOSED : DENIED;
  using client = await dial(mesh(), 'client', { ip: mesh().pod('server').ip, port });
  const mood = random();
  if (mood < 0.1) client.socket.resetAndDestroy();
  else if (mood < 0.2) client.socket.destroy();
  else client.socket.end('hello');
  await client.ended();
}

function descriptors(agent: AgentProcess): number {
  return readdirSync(`/proc/${agent.pid}/fd`).length;
}

/** All access-log lines, once there are `count` and whatever else was under way has been written. */
async function lines(agent: AgentProcess, count: number): Promise<LogLine[]> {
  let found: LogLine[] = [];
  for (let more = -1; found.length < count || more !== found.length; ) {
    more = found.length;
    await sleep(300);
    found = agent.lines.filter(({ scope }) => scope === 'access');
  }
  return found;
}

/** The counters, once no connection is open. */
async function atRest(
  agent: AgentProcess,
): Promise<(name: string, labels?: Readonly<Record<string, string>>) => number> {
  for (;;) {
    const metric = await metricsOf(agent);
    const open = metric('istio_tcp_connections_opened_total') - metric('istio_tcp_connections_closed_total');
    if (open === 0) return metric;
    await sleep(50);
  }
}

test(
  `${CONNECTIONS} connections that end, reset, leave or are refused: one line each, and nothing left open`,
  privileged,
  async (t) => {
    const seed = Date.now() % 2 ** 32;
    t.diagnostic(`seed ${seed}`);
    const random = seededRandom(seed);
    using _server = mesh().serve('server', OPEN, doubling);
    const [n1, n2] = [mesh().agent('n1'), mesh().agent('n2')];
    // The first connections make what stays: the tunnel, code, keys.
    for (let i = 0; i < WARM_UP; i++) await live(random);
    await Promise.all([n1, n2].map(atRest));
    const before = [n1, n2].map(descriptors);

    await Promise.all(
      Array.from({ length: AT_ONCE }, async () => {
        for (let i = 0; i < CONNECTIONS / AT_ONCE; i++) await live(random);
      }),
    );
    const metrics = await Promise.all([n1, n2].map(atRest));

    const outbound = await lines(n1, WARM_UP + CONNECTIONS);
    assert.equal(outbound.length, WARM_UP + CONNECTIONS);
    assert.equal(new Set(outbound.map((line) => line['connection'])).size, outbound.length, 'one id, two lines');
    const inbound = await lines(n2, 1);
    assert.equal(new Set(inbound.map((line) => line['connection'])).size, inbound.length, 'one id, two lines');
    assert.ok(inbound.length <= outbound.length);
    for (const [i, agent] of [n1, n2].entries()) {
      assert.equal(metrics[i]?.('culvert_bugs_total'), 0);
      assert.ok(descriptors(agent) <= (before[i] ?? 0) + 2, `${descriptors(agent)} descriptors, ${before[i]} before`);
    }
    // A handful of streams at once fit one tunnel; each connection with a tunnel of its own would show here.
    assert.equal((await tunnels(n1)) <= 2, true);
  },
);

/** Connections to port 15008 that the pod has open. */
async function tunnels(agent: AgentProcess): Promise<number> {
  const { stdout } = await mesh()
    .pod('client')
    .inside.exec(['ss', '-Htn', 'state', 'established', 'dport', '=', ':15008']);
  assert.ok(agent.isRunning);
  return stdout.split('\n').filter((line) => line !== '').length;
}
