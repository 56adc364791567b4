/** The measured process of `npm run bench:state`: the verdict authority of one node in a big mesh. Forked by `main.ts`. */
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises';
import { VerdictAuthority } from '../../../src/agent/verdicts/verdict-authority.ts';
import { silentLogger } from '../../../src/base/log.ts';
import { nextHop } from '../../../src/model/next-hop.ts';
import type { Policy } from '../../../src/model/policy.ts';
import { RecordStore } from '../../../src/model/record-store.ts';
import type { Workload } from '../../../src/model/workload.ts';
import { RpcChannel } from '../../../src/rpc/channel.ts';
import { readBounded } from '../../../src/sys/files.ts';
import { collectGarbage } from '../../../src/sys/garbage.ts';
import { systemClock } from '../../../src/sys/system-clock.ts';
import { systemRandom } from '../../../src/sys/system-random.ts';
import { XdsClient } from '../../../src/xds/client.ts';
import { nodeOf } from '../../../src/xds/node.ts';
import { DNS_SETTINGS, NOTHING, noHosts, SETTINGS, seeded } from '../../unit/model/sample-mesh.ts';
import { BigMesh, NETWORK, OWN_NODE, podIpOf, vipOf } from './big-mesh.ts';
import { watchTurns } from './event-loop.ts';
import type { ControlPlaneAddress, Figures, Task } from './figures.ts';

const HOPS = 200_000;
const LIVE = 20_000;
/** Records between two turns, as a decoder of a large response works. */
const CHUNK = 200;
/** Quiet time before memory is read, and before live connections are judged again. */
const SETTLE_MS = 2_000;
const random = seeded(1);

process.once('message', (task: Task) => {
  void measure(task).then((figures) => report(figures));
});

function report(figures: Figures): void {
  process.send?.(figures);
  process.disconnect?.();
}

async function measure({ size, controlPlane }: Task): Promise<Figures> {
  const mesh = new BigMesh(size);
  const authority = newAuthority();
  await sleep(500);
  const idle = process.memoryUsage();

  const startMs = performance.now();
  if (controlPlane === undefined) await pushDirectly(mesh, authority);
  else await pushedBy(controlPlane, authority);
  // As the agent does at the end of its start.
  await sleep(50);
  await collectGarbage();
  const readyMs = performance.now() - startMs;

  await sleep(SETTLE_MS);
  const full = process.memoryUsage();
  const pods = [...authority.index.workloads.all()].filter(({ node }) => node === OWN_NODE);
  return {
    readyMs,
    rssPerWorkload: (full.rss - idle.rss) / size.workloads,
    heapPerWorkload: (full.heapUsed - idle.heapUsed) / size.workloads,
    ...hops(authority, mesh, pods),
    ...(await rejudging(authority, pods)),
  };
}

function newAuthority(): VerdictAuthority {
  const certificates = { get: () => Promise.reject(new Error('no TLS here')), prefetch: () => {}, forget: () => {} };
  return new VerdictAuthority(
    { ...SETTINGS, network: NETWORK, nodeName: OWN_NODE, isPolicyLogAtInfo: false, dns: DNS_SETTINGS },
    { clock: systemClock, random, certificates, lookupHost: noHosts, log: silentLogger },
  );
}

/** As two responses of a control plane, without the wire: records made in small steps, then one update each. */
async function pushDirectly(mesh: BigMesh, authority: VerdictAuthority): Promise<void> {
  const records = new RecordStore();
  const services = await gathered(mesh.services(), (service) => records.service(service));
  const workloads = await gathered(mesh.workloads(), (workload) => records.workload(workload));
  authority.apply({ ...NOTHING, services, workloads });
  await nextTurn();
  const policies = await gathered(mesh.policies(), (policy) => policy);
  authority.apply({ ...NOTHING, policies });
}

/** Over TLS and gRPC from another process, until both types are told and applied. */
async function pushedBy({ port, rootPem }: ControlPlaneAddress, authority: VerdictAuthority): Promise<void> {
  const { promise: ready, resolve: onReady } = Promise.withResolvers<void>();
  const channel = new RpcChannel(
    {
      address: { kind: 'tls', host: 'localhost', port },
      name: 'control plane',
      failureCode: 'CV-XDS',
      tls: { roots: { kind: 'inline', pem: rootPem } },
      credentials: { token: { kind: 'none' }, headers: new Map() },
    },
    { clock: systemClock, files: { read: readBounded } },
  );
  const client = new XdsClient(
    { node: NODE, isOnDemand: false },
    {
      channel,
      clock: systemClock,
      random: systemRandom,
      log: { ...silentLogger, error: refused, warn: refused },
      metrics: { streamEnded: () => {}, messageReceived: () => {}, messageRejected: () => {}, connected: () => {} },
      onUpdate: (update) => authority.apply(update),
      onReady,
    },
  );
  client.start();
  await ready;
}

function refused(text: string, fields?: object): void {
  process.stderr.write(`bench:state: ${text} ${JSON.stringify(fields)}\n`);
}

const NODE = nodeOf({
  instanceIp: '10.0.0.1',
  podName: 'agent',
  podNamespace: 'istio-system',
  nodeName: OWN_NODE,
  metadata: {},
  jsonMetadata: {},
});

async function gathered<T>(source: Iterable<T>, keep: (one: T) => T): Promise<T[]> {
  const all: T[] = [];
  for (const one of source) {
    all.push(keep(one));
    if (all.length % CHUNK === 0) await nextTurn();
  }
  return all;
}

/** Half of the connections go to the large services, a fifth to pods, and the rest anywhere. */
function hops(
  { index }: VerdictAuthority,
  mesh: BigMesh,
  pods: readonly Workload[],
): Pick<Figures, 'hopP50Us' | 'hopP99Us'> {
  const micros = new Float64Array(HOPS);
  for (let n = 0; n < HOPS; n++) {
    const source = pods[n % pods.length];
    const clientIp = source?.ips[0];
    if (source === undefined || clientIp === undefined) throw new Error(`no pod on ${OWN_NODE}`);
    const target = { ip: destination(mesh), port: 80 };
    const startMs = performance.now();
    nextHop(index, { source, clientIp, target }, random);
    micros[n] = (performance.now() - startMs) * 1_000;
  }
  micros.sort();
  return { hopP50Us: micros[HOPS * 0.5] ?? 0, hopP99Us: micros[HOPS * 0.99] ?? 0 };
}

function destination({ size }: BigMesh): string {
  const draw = random.next();
  if (draw < 0.5) return vipOf(Math.floor(random.next() * 10));
  if (draw < 0.8) return vipOf(Math.floor(random.next() * size.services));
  return podIpOf(Math.floor(random.next() * size.workloads));
}

type Rejudging = Pick<Figures, 'rejudgeMs' | 'longestTurnMs' | 'longestTurnCpuMs'>;

/** Half of the live connections are from namespaces that a new policy denies. */
async function rejudging(authority: VerdictAuthority, pods: readonly Workload[]): Promise<Rejudging> {
  for (const { uid, name, namespace, serviceAccount } of pods) {
    authority.addPod({ uid, name, namespace, serviceAccount });
  }
  for (let n = 0; n < LIVE; n++) await open(authority, n, pods[n % pods.length]);
  if (authority.trackedCount !== LIVE)
    throw new Error(`${authority.trackedCount} of ${LIVE} connections were accepted`);
  authority.subscribe((push) => {
    if (push.kind === 'revoke') for (const id of push.connectionIds) authority.release(id);
  });
  // Those that a change of policy meets are not all new: what opening so many left to be collected is no part of it.
  await sleep(SETTLE_MS);
  const startMs = performance.now();
  authority.apply({ ...NOTHING, policies: [denying(CLIENT_NAMESPACES / 2)] });
  const { longestMs, longestCpuMs } = await watchTurns(() => authority.trackedCount === LIVE / 2);
  return { rejudgeMs: performance.now() - startMs, longestTurnMs: longestMs, longestTurnCpuMs: longestCpuMs };
}

const CLIENT_NAMESPACES = 100;

async function open(authority: VerdictAuthority, n: number, pod: Workload | undefined): Promise<void> {
  const ip = pod?.ips[0];
  if (pod === undefined || ip === undefined) throw new Error(`no pod on ${OWN_NODE}`);
  const peerIdentity = `spiffe://cluster.local/ns/team-${n % CLIENT_NAMESPACES}/sa/client`;
  await authority.inbound({
    podUid: pod.uid,
    connectionId: `connection-${n}`,
    peer: { ip: podIpOf(n), port: 40_000 },
    local: { ip, port: 15_008 },
    hbone: { peerIdentity, authority: `${ip}:8080` },
  });
}

function denying(namespaces: number): Policy {
  const values = Array.from({ length: namespaces }, (_, n) => ({ kind: 'exact' as const, value: `team-${n}` }));
  const rules = [[[{ namespaces: values }]]];
  return { name: 'bench', namespace: 'root', scope: 'Global', action: 'Deny', dryRun: false, rules };
}
