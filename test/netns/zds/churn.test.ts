/** What must hold however pods and CNI agents come and go: connections go on, and nothing is left behind. */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import type net from 'node:net';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { linuxSys } from '../../../src/sys/linux.ts';
import type { AgentProcess } from '../../support/agent-process.ts';
import { packet } from '../../support/cni-connection.ts';
import { cniMeshForFile } from '../../support/mesh-cni.ts';
import { ask, dial } from '../../support/mesh-traffic.ts';
import { metricsOf } from '../../support/metric-text.ts';
import { skipWithoutRoot } from '../../support/netns.ts';

const privileged = { skip: skipWithoutRoot, timeout: 120_000 };
const LANES = ['lane1', 'lane2', 'lane3', 'lane4'] as const;
const PODS = 1_000;
const { mesh, cni } = cniMeshForFile({
  nodes: { n1: ['client'], n2: ['server', ...LANES] },
  enrolled: ['client', 'server'],
});

function echo(socket: net.Socket): void {
  socket.on('data', (chunk: Buffer) => socket.write(chunk));
  socket.on('end', () => socket.end());
}

/** Descriptors by what they are: netns, sockets, pipes, files. */
function descriptors({ pid }: AgentProcess): number {
  return readdirSync(`/proc/${pid}/fd`).length;
}

/** Connections that stay and exchange checked bytes, and connections that come and go, until told to stop. */
function traffic() {
  let isOver = false;
  let exchanges = 0;
  const to = { ip: mesh().pod('server').ip, port: 8080 };
  const staying = async (id: number): Promise<void> => {
    using client = await dial(mesh(), 'client', to);
    for (let round = 0; !isOver; round += 1) {
      const text = `${id}:${round};`;
      const before = client.bytes;
      await client.exchange(text, text.length);
      assert.equal(client.text.slice(before), text);
      exchanges += 1;
      await sleep(5);
    }
  };
  const passing = async (): Promise<void> => {
    while (!isOver) {
      assert.equal(await ask(mesh(), 'client', to, 'passing'), 'passing');
      exchanges += 1;
    }
  };
  const all = Promise.all([...Array.from({ length: 30 }, (_, id) => staying(id)), passing(), passing()]);
  all.catch(() => {});
  return {
    get exchanges() {
      return exchanges;
    },
    async stop(): Promise<void> {
      isOver = true;
      await all;
    },
  };
}

test('both CNI agents restart three times under traffic, and no connection fails', privileged, async () => {
  using _app = mesh().serve('server', 8080, echo);
  const started = traffic();
  for (let round = 0; round < 3; round += 1) {
    for (const node of ['n1', 'n2']) {
      const agent = mesh().agent(node);
      const [count, from] = [cni(node).connectionCount, agent.lines.length];
      cni(node).stop();
      await agent.line(({ code }) => code === 'CV-ZDS', 'line that the CNI agent is away', from);
      assert.match((await agent.get('/healthz/ready', 15_021)).body, /not ready, pending: workload proxy manager/);
      const before = started.exchanges;
      while (started.exchanges < before + 100) await sleep(5);
      cni(node).start();
      await cni(node).synced(count);
      await mesh().ready(node);
    }
  }
  await started.stop();
  for (const node of ['n1', 'n2']) {
    const metric = await metricsOf(mesh().agent(node));
    const proxies = ['started_total', 'stopped_total'].map((name) => metric(`workload_manager_proxies_${name}`));
    assert.deepEqual(proxies, [1, 0], `proxies of ${node}`);
  }
});

/** Adds and deletes so many pods in the namespace of `lane`, one after the other. */
async function churn(lane: string, from: number, count: number): Promise<void> {
  const connection = await cni('n2').synced();
  using netns = linuxSys.openNetns(mesh().pod(lane).inside.path);
  for (let i = from; i < from + count; i += 1) {
    const uid = `churn-${i}`;
    const workload = { name: uid, namespace: 'demo', serviceAccount: 'churn' };
    await connection.send(packet({ kind: 'add', uid, workload }, netns.fd));
    await connection.send(packet({ kind: 'del', uid }));
  }
}

test(
  `${PODS} pods come and go under traffic: no connection fails, and nothing of them is left`,
  privileged,
  async () => {
    using _app = mesh().serve('server', 8080, echo);
    const agent = mesh().agent('n2');
    // The first ones make what stays: code, and the listings of rules.
    for (const [i, lane] of LANES.entries()) await churn(lane, PODS + i, 1);
    const before = descriptors(agent);
    const startedBefore = (await metricsOf(agent))('workload_manager_proxies_started_total');

    const started = traffic();
    const each = PODS / LANES.length;
    await Promise.all(LANES.map((lane, i) => churn(lane, i * each, each)));
    await started.stop();

    const metric = await metricsOf(agent);
    assert.equal(metric('workload_manager_proxies_started_total'), startedBefore + PODS);
    assert.equal(metric('workload_manager_proxies_stopped_total'), startedBefore + PODS - 1);
    assert.deepEqual(
      [metric('workload_manager_active_proxy_count'), metric('workload_manager_pending_proxy_count')],
      [1, 0],
    );
    const { workloadState } = JSON.parse((await agent.get('/config_dump')).body) as { readonly workloadState: object };
    assert.deepEqual(Object.keys(workloadState), ['uid-server']);
    assert.deepEqual(await listeners(), []);
    while (descriptors(agent) > before + 2) await sleep(50);
  },
);

/** What still listens in the namespaces that the pods used. */
async function listeners(): Promise<string[]> {
  const all = await Promise.all(LANES.map((lane) => mesh().pod(lane).inside.exec(['ss', '-Hltn'])));
  return all.flatMap(({ stdout }) => stdout.split('\n').filter((line) => line !== ''));
}
