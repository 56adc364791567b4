/** The soak itself: two agents under all kinds of change for as long as asked, looked at all the while, and emptied at the end. */
import { REASONS } from '../../../src/base/reasons.ts';
import { calmHoldings, nothingLeft } from '../../support/holdings.ts';
import { ISTIOD_POD, IstioCluster } from '../../support/istio-mesh.ts';
import { TestMesh } from '../../support/mesh.ts';
import { ask } from '../../support/mesh-traffic.ts';
import { metricsOf } from '../../support/metric-text.ts';
import { echo } from '../../support/numbered.ts';
import { pause, type Scene } from './actor.ts';
import { changePolicies, churnPods, DENIED, LANES, loseControlPlane, rotateRoots, stallAgents } from './changes.ts';
import { keepStreams, makeCalls, PORT, WAYS } from './connections.ts';
import { Ledger } from './ledger.ts';
import { readingOf, type Sample } from './samples.ts';

export interface SoakOptions {
  readonly minutes: number;
  readonly workers: number;
  readonly streams: number;
  readonly callsPerSecond: number;
  readonly sampleMs: number;
  /** Of certificates; renewed after a quarter of it. */
  readonly lifetimeMs: number;
  /** Longest that an agent is stopped now and then, as if it had no CPU; 0: never. */
  readonly stallMs: number;
}

export const DEFAULTS: SoakOptions = {
  minutes: 20,
  workers: 2,
  streams: 60,
  callsPerSecond: 10,
  sampleMs: 5_000,
  lifetimeMs: 60_000,
  stallMs: 0,
};

export interface SoakReport {
  readonly options: SoakOptions;
  readonly samples: readonly Sample[];
  readonly counts: Readonly<Record<string, number>>;
  readonly failed: number;
  /** The first ones. */
  readonly failures: readonly string[];
}

export type Progress = (sample: Sample, ledger: Ledger) => void;

const NODES = {
  n1: ['client', 'twin', 'local', 'near', DENIED],
  n2: ['server', ...LANES],
  n3: ['outside', ISTIOD_POD],
};
const ENROLLED = [...NODES.n1, 'server'];
/** Lines that are kept of an agent, which says one per connection. */
const MAX_LINES = 1_000;

export async function soak(options: SoakOptions, onProgress: Progress = () => {}): Promise<SoakReport> {
  await using cluster = await IstioCluster.start();
  const env = {
    ZTUNNEL_WORKER_THREADS: String(options.workers),
    NODE_OPTIONS: `--import=${new URL('../../support/garbage-preload.ts', import.meta.url).href}`,
    SECRET_TTL: `${Math.round(options.lifetimeMs / 1_000)}s`,
    // Tunnels go soon after their connections: what is left at the end is compared with the beginning.
    POOL_UNUSED_RELEASE_TIMEOUT: '2s',
  };
  const told = [...ENROLLED, 'outside'];
  await using mesh = await TestMesh.start(cluster.meshOptions({ nodes: NODES, enrolled: ENROLLED, told, env }));
  for (const name of new Set([...WAYS.map(([, to]) => to)])) mesh.serve(name, PORT, echo);
  const ledger = new Ledger();
  const stop = new AbortController();
  const scene: Scene = { mesh, cluster, ledger, signal: stop.signal, lifetimeMs: options.lifetimeMs };
  await warm(scene);
  const before = await Promise.all(mesh.agents.map(calmHoldings));

  const busy = Promise.all([
    keepStreams(scene, options.streams),
    makeCalls(scene, options.callsPerSecond),
    changePolicies(scene),
    rotateRoots(scene),
    loseControlPlane(scene),
    churnPods(scene),
    stallAgents(scene, options.stallMs),
  ]);
  const samples = await sampled(scene, options, onProgress);
  stop.abort();
  await busy;
  for (const [at, agent] of mesh.agents.entries()) {
    await nothingLeft(agent, before[at] ?? {}).catch((error: unknown) =>
      ledger.fail(`left in ${agent.node.name}`, error),
    );
  }
  await countDefects(scene);
  const { counts, failed, failures } = ledger;
  return { options, samples, counts, failed, failures };
}

/** Each way once, and a pod in each lane: what is made once for ever is there then. */
async function warm(scene: Scene): Promise<void> {
  const { mesh } = scene;
  for (const node of ['n1', 'n2']) await mesh.ready(node);
  for (const [from, to] of [...WAYS, [DENIED, 'server'] as const]) {
    await ask(mesh, from, { ip: mesh.pod(to).ip, port: PORT }, 'warm');
  }
}

async function sampled(scene: Scene, options: SoakOptions, onProgress: Progress): Promise<readonly Sample[]> {
  const { mesh, ledger, signal } = scene;
  const samples: Sample[] = [];
  const startedMs = performance.now();
  const endMs = startedMs + options.minutes * 60_000;
  while (performance.now() < endMs) {
    await pause(signal, Math.min(options.sampleMs, endMs - performance.now()));
    const agents = await Promise.all(
      mesh.agents.map(async (agent) => {
        agent.lines.splice(0, agent.lines.length - MAX_LINES);
        agent.stderr.splice(0, agent.stderr.length - MAX_LINES);
        return [agent.node.name, await readingOf(agent)] as const;
      }),
    ).catch((error: unknown) => ledger.fail('sample', error));
    if (agents === undefined) continue;
    const sample = { atMs: performance.now() - startedMs, agents: Object.fromEntries(agents) };
    samples.push(sample);
    onProgress(sample, ledger);
  }
  return samples;
}

async function countDefects({ mesh, ledger }: Scene): Promise<void> {
  for (const agent of mesh.agents) {
    const metric = await metricsOf(agent);
    ledger.count('certificates issued', metric('culvert_certificate_renewals_total', { result: 'ok' }));
    for (const reason of Object.keys(REASONS) as (keyof typeof REASONS)[]) {
      const refused = metric('culvert_refusals_total', { reason });
      if (refused > 0) ledger.count(`ended by ${agent.node.name} for ${reason}`, refused);
    }
    for (const name of ['culvert_bugs_total', 'culvert_worker_restarts_total']) {
      if (metric(name) > 0) ledger.fail(`${name} of ${agent.node.name}`, metric(name));
    }
  }
}
