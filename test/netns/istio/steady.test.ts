import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { AgentProcess } from '../../support/agent-process.ts';
import { busyHoldings, calmHoldings, nothingLeft } from '../../support/holdings.ts';
import { ISTIOD_POD, IstioCluster } from '../../support/istio-mesh.ts';
import { identityOf, meshForFile } from '../../support/mesh.ts';
import { ask, doubling, refused } from '../../support/mesh-traffic.ts';
import { metricsOf } from '../../support/metric-text.ts';
import { skipWithoutRoot } from '../../support/netns.ts';
import { Steady } from '../../support/steady.ts';
import { until } from '../../support/until.ts';

const privileged = { skip: skipWithoutRoot, timeout: 300_000 };
const CONNECTIONS = 200;
const PODS = ['client', 'server'];
/** Renewed after a quarter of it, since the half counts from two minutes before it was issued. */
const LIFETIME_MS = 60_000;
const cluster = await IstioCluster.start();
const { istiod } = cluster;
const nextCa = await cluster.newCa();
after(() => cluster[Symbol.asyncDispose]());

/** Started as ztunnel's chart starts it. */
const mesh = meshForFile(
  cluster.meshOptions({
    nodes: { n1: ['client'], n2: ['server'], n3: [ISTIOD_POD] },
    enrolled: PODS,
    told: PODS,
    env: {
      SECRET_TTL: `${LIFETIME_MS / 1_000}s`,
      // Tunnels go soon after their connections: what is left then is compared.
      POOL_UNUSED_RELEASE_TIMEOUT: '2s',
    },
  }),
);

const to = () => ({ ip: mesh().pod('server').ip, port: 8080 });
const n2 = (): AgentProcess => mesh().agent('n2');

/** Resolves when both agents have a certificate that was issued from now on. */
async function renewed(): Promise<void> {
  const agents = [mesh().agent('n1'), n2()];
  const issued = async (agent: AgentProcess): Promise<number> =>
    (await metricsOf(agent))('culvert_certificate_renewals_total', { result: 'ok' });
  const before = await Promise.all(agents.map(issued));
  await until('both have a new certificate', async () =>
    (await Promise.all(agents.map(issued))).every((count, i) => count > (before[i] ?? 0)),
  );
}

test(
  'started as ztunnel is, with the environment of its chart, agents are ready and pods talk',
  privileged,
  async () => {
    using _app = mesh().serve('server', 8080, doubling);
    await mesh().ready('n1');
    await mesh().ready('n2');
    assert.equal(await ask(mesh(), 'client', to(), 'hello'), 'hellohello');
    const line = await n2().access('inbound', { 'dst.hbone_addr': `${to().ip}:8080` });
    assert.equal(line['src.identity'], identityOf('client'));
  },
);

test(
  'no connection of two hundred fails, whatever happens to control plane, CA and CNI agents',
  privileged,
  async () => {
    using _app = mesh().serve('server', 8080, doubling);
    await ask(mesh(), 'client', to(), 'warm');
    const agents = [mesh().agent('n1'), n2()];
    const before = await Promise.all(agents.map(calmHoldings));
    {
      await using traffic = await Steady.open(mesh(), { from: 'client', to: to(), connections: CONNECTIONS });
      await traffic.settled();
      const during = await Promise.all(agents.map(busyHoldings));
      /** Every connection goes on, and what was there for a while is gone. */
      const survived = async (): Promise<void> => {
        await traffic.settled();
        for (const [i, agent] of agents.entries()) await nothingLeft(agent, during[i] ?? {});
      };

      await istiod.ca.suspend();
      await until('no stream is left', () => istiod.ads.counts.streams === 0);
      await traffic.settled();
      assert.equal(await ask(mesh(), 'client', to(), 'new'), 'newnew', 'a new connection without a control plane');
      await istiod.ca.resume();
      await until('both streams are back', () => istiod.ads.counts.streams === 2);
      await survived();

      istiod.tellRubbish('Kubernetes//Pod/demo/rubbish');
      await until('both refuse it', () => istiod.ads.counts.nacks >= 2);
      await survived();
      istiod.forget('Kubernetes//Pod/demo/rubbish');

      istiod.tellPolicy('only-client', [identityOf('client').slice('spiffe://'.length)]);
      await until('the policy is there', async () => (await n2().get('/config_dump')).body.includes('only-client'));
      await survived();
      istiod.forgetPolicy('only-client');

      for (const cni of cluster.cnis) {
        const count = cni.connectionCount;
        cni.stop();
        cni.start();
        await cni.synced(count);
      }
      await survived();

      await istiod.ca.suspend();
      await sleep(LIFETIME_MS / 2 + 1_000);
      await traffic.settled();
      assert.equal(await ask(mesh(), 'client', to(), 'late'), 'latelate', 'a new connection after half a lifetime');
      cluster.signBy(istiod.ca.ca, [istiod.ca.ca, nextCa]);
      await istiod.ca.resume();
      await renewed();
      await survived();

      cluster.signBy(nextCa, [istiod.ca.ca, nextCa]);
      await renewed();
      await survived();
    }
    for (const [i, agent] of agents.entries()) await nothingLeft(agent, before[i] ?? {});
    await until('all are closed', async () => {
      const metric = await metricsOf(n2());
      const opened = metric('istio_tcp_connections_opened_total', { reporter: 'destination' });
      return (
        opened > CONNECTIONS && opened === metric('istio_tcp_connections_closed_total', { reporter: 'destination' })
      );
    });
  },
);

test(
  'an agent killed while control plane and CA are away serves again at once with what it had',
  privileged,
  async () => {
    using _app = mesh().serve('server', 8080, doubling);
    await istiod.ca.suspend();
    n2().kill('SIGKILL');
    await n2().exited;
    await mesh().startAgent('n2');
    await mesh().ready('n2');
    assert.equal(await ask(mesh(), 'client', to(), 'again'), 'againagain');
    await istiod.ca.resume();
    await until('both streams are back', () => istiod.ads.counts.streams === 2);
  },
);

test(
  'a policy of the control plane refuses whom it does not name, and lets in again when it goes',
  privileged,
  async () => {
    using _app = mesh().serve('server', 8080, doubling);
    istiod.tellPolicy('nobody', ['cluster.local/ns/demo/sa/nobody']);
    await until('the policy is there', async () => (await n2().get('/config_dump')).body.includes('"nobody"'));
    await refused(mesh(), 'client', to());
    await n2().line((line) => line['reason'] === 'CV-POLICY-NOT-ALLOWED', 'line that the policy refused it');
    istiod.forgetPolicy('nobody');
    await until('the policy is gone', async () => !(await n2().get('/config_dump')).body.includes('"nobody"'));
    assert.equal(await ask(mesh(), 'client', to(), 'hello'), 'hellohello');
  },
);
