/** Starts what carries traffic: in worker threads, or in this one. */
import { TlsContexts } from '../identity/tls-context.ts';
import { budgetPart } from '../model/budget.ts';
import type { ClaimedStream, ProxySettings, StreamClaim } from '../proxy/settings.ts';
import { systemLoopTime } from '../sys/loop-time.ts';
import { ownNetnsFd } from '../sys/netns.ts';
import { ConnectionRecords } from '../telemetry/connection-records.ts';
import { DnsRecords } from '../telemetry/dns-records.ts';
import type { AgentMetrics } from '../telemetry/metrics.ts';
import type { Readiness } from './admin/readiness.ts';
import type { AgentDeps } from './agent.ts';
import { type DataPlane, mainThreadPlane } from './data-plane.ts';
import { PodProxies } from './pod-proxies.ts';
import { proxySettings } from './proxy-settings.ts';
import type { AgentConfig } from './settings/config.ts';
import type { VerdictAuthority } from './verdicts/verdict-authority.ts';
import { WorkerPool } from './workers/worker-pool.ts';

export interface DataPlaneParts {
  readonly authority: VerdictAuthority;
  readonly metrics: AgentMetrics;
  readonly readiness: Readiness;
  /** Asks the agents before this one for a suspended stream. */
  readonly claimBefore: (claim: StreamClaim) => Promise<ClaimedStream>;
}

/** Resolves when pods can be started. `undo` ends it, after its pods have stopped. */
export async function startDataPlane(
  config: AgentConfig,
  deps: AgentDeps,
  parts: DataPlaneParts,
  undo: AsyncDisposableStack,
): Promise<DataPlane> {
  const settings = proxySettings(config);
  if (config.workers > 0) return undo.use(await startWorkers(config, deps, parts, settings));
  const { sys, clock, random, logs } = deps;
  const telemetry = new ConnectionRecords({ metrics: parts.metrics, accessLog: logs.scope('access'), clock });
  undo.defer(() => telemetry.sumUp());
  const verdicts = parts.authority;
  const dns = new DnsRecords({ metrics: parts.metrics, log: logs.scope('dns'), clock });
  const contexts = new TlsContexts(config.tls);
  const elsewhere = { claim: parts.claimBefore };
  const proxyDeps = { sys, clock, random, verdicts, contexts, telemetry, dns, elsewhere, log: logs.scope('proxy') };
  const proxies = undo.use(
    new PodProxies({
      settings,
      loopTime: systemLoopTime,
      deps: proxyDeps,
      drainGraceMs: config.drainGraceMs,
      holdMs: config.holdMs,
    }),
  );
  return mainThreadPlane({ proxies, records: telemetry, contexts });
}

async function startWorkers(
  config: AgentConfig,
  { clock, random, logs, logFd }: AgentDeps,
  { authority, metrics, readiness, claimBefore }: DataPlaneParts,
  settings: ProxySettings,
): Promise<WorkerPool> {
  const start = {
    settings: shareOf(settings, config.workers),
    tls: config.tls,
    drainGraceMs: config.drainGraceMs,
    holdMs: config.holdMs,
    logFormat: config.logFormat,
    logFd,
    netnsFd: ownNetnsFd(),
  };
  const options = {
    count: config.workers,
    hangMs: config.workerHangMs,
    lanes: config.greedyLane,
    worker: { start, heapMib: config.workerHeapMib },
  };
  return await WorkerPool.start(options, {
    authority,
    metrics,
    clock,
    random,
    wallMs: () => clock.wallMs(),
    log: logs.scope('proxy'),
    accessLog: logs.scope('access'),
    writeLines: (lines) => logs.writeLines(lines),
    logFilter: () => logs.current(),
    onEnd: (cause) => metrics.own.workerRestarted(cause),
    claimBefore,
    onHealth: (isHealthy) => {
      if (isHealthy) readiness.complete('data-plane workers');
      else readiness.begin('data-plane workers');
    },
  });
}

/** The bounds of a pod, split evenly: the kernel spreads its connections so. */
function shareOf(settings: ProxySettings, workers: number): ProxySettings {
  const part = (bound: number): number => Math.ceil(bound / workers);
  return {
    ...settings,
    maxHandshakes: part(settings.maxHandshakes),
    maxTunnels: part(settings.maxTunnels),
    maxConnections: part(settings.maxConnections),
    budget: budgetPart(settings.budget, workers),
    ...(settings.dns === undefined
      ? {}
      : {
          dns: {
            ...settings.dns,
            maxQueries: part(settings.dns.maxQueries),
            maxConnections: part(settings.dns.maxConnections),
          },
        }),
  };
}
