/** The composition root: makes every service once, starts them in order, stops them in the opposite order. */
import type { Clock } from '../base/clock.ts';
import { MeshError } from '../base/errors.ts';
import type { Random } from '../base/random.ts';
import type { ProxySet } from '../capture/capture-contract.ts';
import { PodManager } from '../capture/pods.ts';
import { CertificateManager } from '../identity/certificate-manager.ts';
import type { CertificateProvider } from '../identity/certificate-provider.ts';
import type { CrlFile } from '../identity/crl-file.ts';
import { requireTlsPolicy } from '../identity/tls-policy.ts';
import { descriptorShortage } from '../sys/descriptor-table.ts';
import { hostLookup } from '../sys/host-lookup.ts';
import { selfCheck } from '../sys/self-check.ts';
import type { Sys } from '../sys/sys.ts';
import type { RootLogger } from '../telemetry/logger.ts';
import { AgentMetrics } from '../telemetry/metrics.ts';
import { Readiness, type ReadinessTask } from './admin/readiness.ts';
import { AgentServers } from './admin/servers.ts';
import { Budgets, type BudgetTable } from './budgets.ts';
import { certificateVault, openCertificateSource } from './certificate-source.ts';
import type { DataPlane } from './data-plane.ts';
import { watchDescriptors } from './descriptor-watch.ts';
import { awaitSuccessor } from './hand-over/await-successor.ts';
import { Estate } from './hand-over/estate.ts';
import { NodeLease } from './hand-over/lease.ts';
import type { Legacy } from './hand-over/legacy.ts';
import { MeshSource } from './mesh-source.ts';
import { prepareOwnNamespace } from './own-namespace.ts';
import { podSource } from './pod-source.ts';
import { authoritySettings } from './proxy-settings.ts';
import { watchProcess, watchThread } from './quiet-thread.ts';
import { watchRevocationLists } from './revocation-lists.ts';
import { servePod, serveSelf } from './serve-pod.ts';
import type { AgentConfig } from './settings/config.ts';
import { type DataPlaneParts, startDataPlane } from './start-data-plane.ts';
import { watchThreads } from './thread-holdings.ts';
import { VerdictAuthority } from './verdicts/verdict-authority.ts';

export interface AgentDeps {
  readonly sys: Sys;
  readonly clock: Clock;
  readonly random: Random;
  readonly logs: RootLogger;
  /** Where `logs` writes to. */
  readonly logFd: number;
  readonly version: string;
  /** Asks the owner of the process to stop the agent (`/quitquitquit`). */
  readonly requestQuit: () => void;
}

/** Everything admin views look at. Made by `startAgent`. */
export interface AgentParts {
  readonly config: AgentConfig;
  readonly metrics: AgentMetrics;
  readonly certificates: CertificateManager;
  /** Absent without `CRL_PATH`. */
  readonly crlFile: CrlFile | undefined;
  readonly authority: VerdictAuthority;
  readonly mesh: MeshSource;
  readonly dataPlane: DataPlane;
  readonly estate: Estate;
  readonly lease: NodeLease;
  readonly pods: PodManager;
  readonly readiness: Readiness;
  readonly startedMs: number;
  /** Settles when the agent was told to stop and no connection is left. */
  readonly drained: Promise<void>;
}

export interface Agent extends AgentParts {
  /**
   * Settles when pods are served, which a control plane may put off; rejects when they cannot be. What was taken from another
   * agent until then is left here, for `stop('held')`.
   */
  readonly serving: Promise<void>;
  /** Resolves when a successor serves this node: what could not move is left here, for `stop('held')`. */
  readonly handedOver: Promise<void>;
  /**
   * Lets connections finish, for the drain grace or the hold time, then ends everything. The rules stay in the pods: they
   * fail closed.
   */
  stop(mode?: 'graceful' | 'held'): Promise<void>;
}

/** Rejects with a `MeshError` that names what is wrong; nothing is left running then. */
export async function startAgent(config: AgentConfig, deps: AgentDeps): Promise<Agent> {
  await using undo = new AsyncDisposableStack();
  const isDedicated = config.podSource.kind === 'own';
  await requireAbilities(config, deps.sys);
  await prepareOwnNamespace(config, deps.sys);
  requireTlsPolicy(config.tls);
  const { runDir, isTakeOver } = config;
  const lease = undo.use(
    await NodeLease.take({ runDir, isTakeOver, build: deps.version }, { ...deps, log: deps.logs.scope('hand-over') }),
  );
  const drained = Promise.withResolvers<void>();
  const parts = { ...(await makeParts(config, deps, lease, undo)), drained: drained.promise };
  const servers = undo.use(new AgentServers(parts, deps));
  await lease.bindServers(() => servers.start());
  const late = undo.use(new AsyncDisposableStack());
  let self: ProxySet | undefined;
  let isStopping = false;
  const handedOver = Promise.withResolvers<void>();
  const serve = async (): Promise<void> => {
    await parts.mesh.told;
    if (isStopping) return;
    parts.readiness.complete('state manager');
    self = isDedicated ? undefined : await serveSelf(config.self, deps, parts);
    late.defer(() => self?.stop('graceful'));
    parts.pods.start();
    if (!isDedicated) parts.readiness.complete('proxy');
    parts.readiness.complete('dns proxy');
    const result = await lease.settle(parts.readiness.whenReady());
    if (result !== undefined) parts.metrics.handOver.taken(result);
    parts.certificates.forgetInherited();
    if (!isStopping) handedOver.resolve(awaitSuccessor({ parts, servers, deps }, late));
  };
  parts.mesh.start();
  const serving = serve().catch(async (error: unknown) => {
    // An agent that serves the node needs their ports.
    await servers.stop();
    throw error;
  });
  // What is here already is waited for: who starts an agent with a file learns at once what is wrong with it.
  // Who takes a node over waits for longer, and can be told to stop meanwhile.
  if (config.xds === undefined && !lease.isTaking) await serving;
  const cleanup = undo.move();
  const stop = async (mode: 'graceful' | 'held' = 'graceful'): Promise<void> => {
    isStopping = true;
    parts.readiness.begin('drain');
    lease.giveUp();
    try {
      // Traffic first: its drain must not wait for a slow reader of the admin port, and can be watched there meanwhile.
      await Promise.all([parts.pods.stop(mode), self?.stop(mode)]);
    } finally {
      drained.resolve();
      await cleanup.disposeAsync();
    }
  };
  return { ...parts, serving, handedOver: handedOver.promise, stop };
}

async function makeParts(
  config: AgentConfig,
  deps: AgentDeps,
  lease: NodeLease,
  undo: AsyncDisposableStack,
): Promise<Omit<AgentParts, 'drained'>> {
  const { clock, random, logs } = deps;
  const readiness = new Readiness({ clock, log: logs.scope('readiness') });
  for (const task of ['state manager', 'proxy', podsTask(config)] as const) readiness.begin(task);
  if (config.dnsProxy !== undefined) readiness.begin('dns proxy');
  const metrics = new AgentMetrics({
    buildTag: config.metadata['ISTIO_VERSION'] ?? deps.version,
    hasProcessMetrics: true,
  });
  const provider = await openCertificateSource(config, deps, metrics, undo);
  const legacy = lease.takeLegacy();
  const certificates = undo.use(makeCertificates(config, deps, provider, metrics, legacy));
  const authority = new VerdictAuthority(authoritySettings(config), {
    clock,
    random,
    certificates,
    lookupHost: hostLookup({ isIpv6Enabled: config.isIpv6Enabled, servers: config.hostNameservers }),
    log: logs.scope('state'),
    onHostLookup: (client, hostname) => metrics.hostLookups.count(client, hostname),
  });
  metrics.own.watchCertificates(() => certificates.expiries());
  metrics.handOver.watchHeld(() => lease.predecessors.reduce((sum, { connections }) => sum + connections, 0));
  undo.use(certificates.subscribe((identity) => authority.certificateChanged(identity)));
  const crlFile = await watchRevocationLists(config.crlPath, deps, { metrics, certificates, authority });
  if (crlFile !== undefined) undo.use(crlFile);
  const mesh = new MeshSource(config, deps, { authority, metrics, keptFd: legacy.meshFd }, undo);
  const estate = new Estate();
  const claimBefore: DataPlaneParts['claimBefore'] = (claim) => lease.claim(estate.keyOf(claim.podUid), claim);
  const dataPlane = await startDataPlane(config, deps, { authority, metrics, readiness, claimBefore }, undo);
  undo.use(watchThread(clock));
  undo.use(watchProcess(clock));
  undo.use(watchDescriptors({ clock, log: logs.scope('agent'), shortage: descriptorShortage }));
  const onChange = (table: BudgetTable): void => dataPlane.setBudgets(table);
  const budgets = undo.use(new Budgets(config, { clock, log: logs.scope('agent'), onChange }));
  const pods = makePods(config, deps, { metrics, authority, dataPlane, estate, lease, readiness, mesh, budgets });
  undo.defer(() => pods.stop('graceful'));
  watchThreads({ metrics, authority, certificates, dataPlane, pods });
  const startedMs = clock.wallMs();
  return {
    config,
    metrics,
    certificates,
    crlFile,
    authority,
    mesh,
    dataPlane,
    estate,
    lease,
    pods,
    readiness,
    startedMs,
  };
}

function makeCertificates(
  config: AgentConfig,
  { clock, random, logs }: AgentDeps,
  provider: CertificateProvider,
  { own }: AgentMetrics,
  legacy: Legacy,
): CertificateManager {
  const observer = {
    issued: () => own.certificateRenewed('ok'),
    failed: (_identity: string, { code }: MeshError) => own.certificateFailed(code),
  };
  const log = logs.scope('identity');
  const vault = certificateVault(config, { clock, log });
  // As on disk: other sources are on this node, and keep what they have.
  const inherited = config.certificateSource.kind === 'istio' ? legacy.certificates : undefined;
  const ttlMs = config.certificateTtlMs;
  return new CertificateManager({ provider, clock, random, log, observer, vault, inherited, ttlMs });
}

function makePods(
  config: AgentConfig,
  deps: AgentDeps,
  parts: Pick<AgentParts, 'metrics' | 'authority' | 'mesh' | 'dataPlane' | 'estate' | 'lease' | 'readiness'> & {
    readonly budgets: Budgets;
  },
): PodManager {
  const { sys, clock } = deps;
  const { proxies, own, zds } = parts.metrics;
  const { exempt, ...from } = podSource(config, deps, zds);
  const task = podsTask(config);
  const log = deps.logs.scope('capture');
  const pods: PodManager = new PodManager({
    sys,
    clock,
    log,
    ...from,
    settings: {
      ipv6: config.isIpv6Enabled,
      dnsCapture: config.dnsProxy !== undefined,
      verifyMs: config.verifyPeriodMs,
      ...(exempt !== undefined && { exempt }),
    },
    startProxy: (pod, netns) => servePod(pod, netns, parts),
    onEvent: (event) => {
      if (event === 'started') proxies.started.inc();
      else if (event === 'stopped') proxies.stopped.inc();
      else own.redirectRepaired();
    },
    onChange: () => {
      parts.budgets.serve(pods.statuses().map(({ pod }) => pod));
      const { up, pending, notRedirected } = pods.counts();
      proxies.active.set(up);
      proxies.pending.set(pending);
      zds.notRedirected(notRedirected);
      if (pods.readiness().isReady) parts.readiness.complete(task);
      else parts.readiness.begin(task);
    },
  });
  return pods;
}

/** What readiness waits for until the pods are served. */
function podsTask({ podSource }: AgentConfig): ReadinessTask {
  return podSource.kind === 'own' ? 'proxy' : 'workload proxy manager';
}

/** Every missing ability at once: one restart should be enough to fix them. */
async function requireAbilities({ podSource }: AgentConfig, sys: Sys): Promise<void> {
  // Listening and dialling in the own namespace is everybody's right.
  if (podSource.kind === 'own' && podSource.redirection === 'none') return;
  // What a CNI agent writes, on whatever kernel with whatever tool, is its affair.
  const findings = (await selfCheck(sys)).filter(({ isForRules }) => podSource.kind !== 'zds' || isForRules !== true);
  const missing = findings.filter(({ ok }) => !ok);
  if (missing.length === 0) return;
  const lines = missing.map(({ name, purpose, cure }) => `${name} is missing (needed for: ${purpose}): ${cure}`);
  throw new MeshError('CV-SYS', lines.join('\n'));
}
