/** What must hold however pods and CNI agents come and go: connections go on, and nothing is left behind. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { linuxSys } from '../../../src/sys/linux.ts';
import { packet } from '../../support/cni-connection.ts';
import { calmHoldings, nothingLeft } from '../../support/holdings.ts';
import { cniMeshForFile } from '../../support/mesh-cni.ts';
import { ask, doubling } from '../../support/mesh-traffic.ts';
import { metricsOf } from '../../support/metric-text.ts';
import { skipWithoutRoot } from '../../support/netns.ts';
import { Steady } from '../../support/steady.ts';

const privileged = { skip: skipWithoutRoot, timeout: 300_000 };
const LANES = ['lane1', 'lane2', 'lane3', 'lane4'] as const;
const PODS = 1_000;
const { mesh, cni } = cniMeshForFile({
  nodes: { n1: ['client'], n2: ['server', ...LANES] },
  enrolled: ['client', 'server'],
  // Tunnels go soon after their connections: what is left then is compared.
  env: { POOL_UNUSED_RELEASE_TIMEOUT: '2s' },
});

const to = () => ({ ip: mesh().pod('server').ip, port: 8080 });

/** Two hundred connections that stay and exchange checked bytes, and others that come and go, until told to stop. */
async function traffic() {
  const steady = await Steady.open(mesh(), { from: 'client', to: to(), connections: 200 });
  let isOver = false;
  const passing = async (): Promise<void> => {
    while (!isOver) {
      assert.equal(await ask(mesh(), 'client', to(), 'passing'), 'passing'.repeat(2));
      await sleep(20);
    }
  };
  const all = Promise.all([passing(), passing()]);
  all.catch(() => {});
  return {
    settled: () => steady.settled(),
    async stop(): Promise<void> {
      isOver = true;
      await all;
      await steady[Symbol.asyncDispose]();
      assert.deepEqual(steady.failures, []);
    },
  };
}

test('both CNI agents restart three times under traffic, and no connection fails', privileged, async () => {
  using _app = mesh().serve('server', 8080, doubling);
  const started = await traffic();
  for (let round = 0; round < 3; round += 1) {
    for (const node of ['n1', 'n2']) {
      const agent = mesh().agent(node);
      const [count, from] = [cni(node).connectionCount, agent.lines.length];
      cni(node).stop();
      await agent.line(({ reason }) => reason === 'CV-ZDS', 'line that the CNI agent is away', from);
      assert.match((await agent.get('/healthz/ready', 15_021)).body, /not ready, pending: workload proxy manager/);
      await started.settled();
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
    using _app = mesh().serve('server', 8080, doubling);
    const agent = mesh().agent('n2');
    // The first ones make what stays: code, and the listings of rules.
    for (const [i, lane] of LANES.entries()) await churn(lane, PODS + i, 1);
    const before = await calmHoldings(agent);
    const startedBefore = (await metricsOf(agent))('workload_manager_proxies_started_total');

    const started = await traffic();
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
    await nothingLeft(agent, before);
  },
);

/** What still listens in the namespaces that the pods used. */
async function listeners(): Promise<string[]> {
  const all = await Promise.all(LANES.map((lane) => mesh().pod(lane).inside.exec(['ss', '-Hltn'])));
  return all.flatMap(({ stdout }) => stdout.split('\n').filter((line) => line !== ''));
}
