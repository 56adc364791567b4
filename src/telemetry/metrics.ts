/** All metrics of the agent, assembled: one prom-client registry, one text for the scraper. */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { Counter, collectDefaultMetrics, Gauge, Registry } from 'prom-client';
import type { ReasonCode } from '../base/reasons.ts';
import type { ConnectionCounts, ConnectionEnd } from './connection-records.ts';
import type { DnsCounts } from './dns-records.ts';
import { type DnsLabels, DnsSeriesTable } from './dns-series.ts';
import { HostLookupTable } from './host-lookup-series.ts';
import { type HandOverMetrics, handOverMetrics } from './metrics-hand-over.ts';
import { type OwnMetrics, ownMetrics } from './metrics-own.ts';
import { type RevocationMetrics, revocationMetrics } from './metrics-revocation.ts';

import { type XdsMetrics, xdsMetrics } from './metrics-xds.ts';
import { type ZdsMetrics, zdsMetrics } from './metrics-zds.ts';

import { type Family, openMetricsPieces, type Sample } from './openmetrics.ts';
import { ThreadTable } from './thread-series.ts';
import type { ConnectionKind, ConnectionStart } from './traffic.ts';
import { type TrafficSeries, TrafficSeriesTable } from './traffic-series.ts';
import { WorkloadUseTable } from './workload-use.ts';

export interface MetricsOptions {
  /** `tag` of `istio_build`: the version dashboards show. */
  readonly buildTag: string;
  /** Process and Node metrics; off in unit tests, which compare whole texts. */
  readonly hasProcessMetrics: boolean;
  readonly maxLabelSets?: number;
}

/** Per-pod proxies, as the capture layer runs them (`workload_manager_*`). */
export interface ProxyMetrics {
  readonly active: Gauge;
  readonly pending: Gauge;
  readonly started: Counter;
  readonly stopped: Counter;
}

/** `ThreadTable` has them for all threads; prom-client lists every handle twice, and its `_total` gauges break OpenMetrics. */
const LEFT_OUT = [
  'nodejs_active_handles',
  'nodejs_active_handles_total',
  'nodejs_active_requests',
  'nodejs_active_requests_total',
  'nodejs_active_resources',
  'nodejs_active_resources_total',
];
/** Metrics of ztunnel that declare a unit; prom-client knows none. */
const UNITS: ReadonlyMap<string, string> = new Map([['istio_xds_message_bytes_total', 'bytes']]);
/** How often the event-loop delay is sampled, ms; each sample wakes the thread. */
const LOOP_PRECISION_MS = 50;

export class AgentMetrics implements ConnectionCounts, DnsCounts {
  readonly traffic: TrafficSeriesTable;
  readonly dns = new DnsSeriesTable();
  readonly hostLookups = new HostLookupTable();
  readonly threads = new ThreadTable();
  readonly workloads = new WorkloadUseTable();
  readonly proxies: ProxyMetrics;
  readonly own: OwnMetrics;
  readonly revocation: RevocationMetrics;
  readonly zds: ZdsMetrics;
  readonly handOver: HandOverMetrics;
  readonly #registry = new Registry();
  /** Plain numbers: a labelled gauge costs microseconds per call, and every connection makes two. */
  readonly #socketsOpen = new Map<'source' | 'destination', number>();

  constructor(options: MetricsOptions) {
    const registers = [this.#registry];
    this.traffic = new TrafficSeriesTable(options.maxLabelSets);
    const open = this.#socketsOpen;
    new Gauge({
      name: 'istio_tcp_sockets_open',
      help: 'The number of accepted downstream sockets currently held (unstable).',
      labelNames: ['reporter'],
      registers,
      collect() {
        for (const [reporter, count] of open) this.set({ reporter }, count);
      },
    });
    buildInfo(registers, options.buildTag);
    this.proxies = proxyMetrics(registers);
    this.own = ownMetrics(registers, this.traffic);
    this.revocation = revocationMetrics(registers);
    this.zds = zdsMetrics(registers);
    this.handOver = handOverMetrics(registers);
    if (options.hasProcessMetrics) addProcessMetrics(this.#registry);
  }

  /** Once, for an agent with a control plane: others do not show its series. */
  forXds(): XdsMetrics {
    return xdsMetrics([this.#registry]);
  }

  opened({ earlier, labels }: ConnectionStart): TrafficSeries {
    return earlier === undefined ? this.traffic.open(labels) : this.traffic.adopt(labels);
  }

  /** The series has all there is to count otherwise. */
  ended(start: ConnectionKind, end: ConnectionEnd): void {
    if (end === 'moved') this.handOver.left(start);
    if (end === 'CV-HOLD') this.handOver.cut(start);
  }

  moved(kind: ConnectionKind, pauseMs: number): void {
    this.handOver.moved(kind, pauseMs);
  }

  refused(code: ReasonCode, direction: ConnectionStart['direction'], count = 1): void {
    this.own.refused(code, direction, count);
  }

  socketOpened(reporter: 'source' | 'destination'): void {
    this.addSockets(reporter, 1);
  }

  socketClosed(reporter: 'source' | 'destination'): void {
    this.addSockets(reporter, -1);
  }

  addSockets(reporter: 'source' | 'destination', count: number): void {
    if (count !== 0) this.#socketsOpen.set(reporter, (this.#socketsOpen.get(reporter) ?? 0) + count);
  }

  peerRevoked(reporter: 'source' | 'destination', count = 1): void {
    this.revocation.rejected(reporter, count);
  }

  dnsAsked(labels: DnsLabels): void {
    this.dns.asked(labels);
  }

  dnsForwarded(labels: DnsLabels, seconds: number, isFailure: boolean): void {
    this.dns.forwarded(labels, seconds, isFailure);
  }

  dnsRefused(code: ReasonCode, count = 1): void {
    this.own.dnsRefused(code, count);
  }

  /** The whole exposition; numbers are as of this call, though others have their turns while the text is written. */
  async render(): Promise<string> {
    const families = [
      ...this.traffic.families(),
      ...this.dns.families(),
      this.hostLookups.family(),
      ...(await this.threads.families()),
      ...this.workloads.families(),
      ...(await this.#registered()),
    ];
    const pieces: string[] = [];
    for (const piece of openMetricsPieces(families)) {
      if (pieces.length > 0) await nextTurn();
      pieces.push(piece);
    }
    return pieces.join('');
  }

  async #registered(): Promise<readonly Family[]> {
    const metrics = await this.#registry.getMetricsAsJSON();
    return metrics.map(({ name, help, type, values }) => {
      // The published type of prom-client knows only `gauge` here; the runtime value is the text of the exposition.
      const unit = UNITS.get(name);
      const family = { name, help, type: String(type) as Family['type'], samples: values as readonly Sample[] };
      return unit === undefined ? family : { ...family, unit };
    });
  }
}

function buildInfo(registers: Registry[], tag: string): void {
  const help = 'Istio component build info.';
  new Gauge({ name: 'istio_build', help, labelNames: ['component', 'tag'], registers }).set(
    { component: 'ztunnel', tag },
    1,
  );
}

function proxyMetrics(registers: Registry[]): ProxyMetrics {
  const gauge = (name: string, help: string) => new Gauge({ name: `workload_manager_${name}`, help, registers });
  const counter = (name: string, help: string) => new Counter({ name: `workload_manager_${name}`, help, registers });
  return {
    active: gauge('active_proxy_count', 'The total number of running per-pod proxies (unstable).'),
    pending: gauge('pending_proxy_count', 'The total number of per-pod proxies that are being retried (unstable).'),
    started: counter('proxies_started_total', 'The total number of per-pod proxies that were started (unstable).'),
    stopped: counter('proxies_stopped_total', 'The total number of per-pod proxies that were stopped (unstable).'),
  };
}

function addProcessMetrics(registry: Registry): void {
  collectDefaultMetrics({ register: registry, eventLoopMonitoringPrecision: LOOP_PRECISION_MS });
  for (const name of LEFT_OUT) registry.removeSingleMetric(name);
}
