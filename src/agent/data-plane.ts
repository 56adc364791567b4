/** Everything that carries traffic, wherever it runs: what the rest of the agent asks of it. */
import type { ProxySet } from '../capture/capture-contract.ts';
import type { TlsContexts } from '../identity/tls-context.ts';
import type { Departed } from '../proxy/departure.ts';
import type { Inheritance, InheritedConnection, InheritedListener, TunnelNeeds } from '../proxy/inheritance.ts';
import type { ServedPart } from '../proxy/pod-context.ts';
import type { ClaimedStream, StreamClaim } from '../proxy/settings.ts';
import { collectGarbage } from '../sys/garbage.ts';
import type { Netns } from '../sys/sys.ts';
import { threadUsage } from '../sys/thread-usage.ts';
import type { ConnectionRecords, TrafficTotals } from '../telemetry/connection-records.ts';
import type { ConnectionView } from '../telemetry/connection-view.ts';
import type { Holdings } from '../telemetry/thread-series.ts';
import type { WorkloadUse } from '../telemetry/workload-use.ts';
import type { ConnectionsView, WorkerView } from './admin/views.ts';
import type { BudgetTable } from './budgets.ts';
import type { PodProxies } from './pod-proxies.ts';
import type { Inspect } from './thread-inspector.ts';
import { UsageTable } from './usage-table.ts';

/** Whose traffic is to be carried. Plain data: it may go to another thread. */
export interface ServedPod {
  readonly uid: string;
  /** See `ProxyPod`. */
  readonly isAgent?: boolean | undefined;
  readonly serves?: ServedPart | undefined;
}

export interface MovableSet extends ProxySet {
  /** Tunnels that its streams will go on in elsewhere: to be asked before it leaves. */
  needs(): Promise<TunnelNeeds>;
  /** Opens those of another process whose streams are to come. Settles soon, whatever becomes of it. */
  warm(needs: TunnelNeeds): Promise<void>;
  /** Leaves its listeners to another process; connections go on until they are asked for, or `stop`. */
  leaveListeners(): Promise<readonly InheritedListener[]>;
  /** Then: connections that can move, a few at a time. */
  moveSome(): Promise<Departed>;
  /** A suspended stream that a client looks for in another process. */
  surrender(claim: StreamClaim): Promise<ClaimedStream>;
  /** Goes on with connections of another process, and owns their descriptors. */
  adopt(connections: readonly InheritedConnection[]): Promise<void>;
}

/** What it tells of itself. */
export interface DataPlaneViews {
  connections(): Promise<ConnectionsView>;
  /** An open or remembered connection. */
  find(id: string): Promise<ConnectionView | undefined>;
  totals(): TrafficTotals;
  /** What each pod uses, over all threads. */
  usage(): Promise<readonly WorkloadUse[]>;
  /** UIDs of those whose new connections threads of their own serve. */
  greedyPods(): ReadonlySet<string>;
  threads(): readonly WorkerView[];
  /** Profilers of the threads that are not this one, by name. */
  inspectors(): Iterable<readonly [string, Inspect]>;
  /** What its threads hold, by name. One that does not answer is left out. */
  holdings(): Promise<readonly (readonly [thread: string, Holdings])[]>;
  /** Resolves when all numbers of the metrics are those of now. */
  settle(): Promise<void>;
}

export interface DataPlane {
  /** Binds the listeners of one pod; fails when one cannot be bound. `netns` stays open until the set has stopped. */
  start(pod: ServedPod, netns: Netns, inherited?: Inheritance): Promise<MovableSet>;
  /** What was stopped as `held` ends within the drain grace. */
  hasten(): void;
  /** Ends so many connections, those on which nothing moved for longest, for `CV-HOLD`; how many it were. */
  shed(count: number): Promise<number>;
  /** Gives memory back that nobody needs; threads stand still meanwhile. */
  trim(): Promise<void>;
  readonly views: DataPlaneViews;
  /** What pods may use, from now on. */
  setBudgets(table: BudgetTable): void;
  /** The log filter of the agent has changed to this. */
  setLogFilter(filter: string): void;
}

interface MainThreadParts {
  readonly proxies: PodProxies;
  readonly records: ConnectionRecords;
  readonly contexts: TlsContexts;
}

/** The data plane of an agent without workers: the main thread carries all. */
export function mainThreadPlane({ proxies, records, contexts }: MainThreadParts): DataPlane {
  const usage = new UsageTable();
  return {
    start: async (pod, netns, inherited) => proxies.start(pod, netns, inherited),
    hasten: () => proxies.hasten(),
    shed: async (count) => proxies.shed(count),
    trim: collectGarbage,
    views: {
      connections: async () => ({ open: proxies.withObstacles(records.live()), refused: records.recentRefusals() }),
      find: async (id) => records.find(id),
      totals: () => records.totals(),
      usage: async () => {
        usage.tell('main', proxies, proxies.usage());
        return usage.all();
      },
      greedyPods: () => new Set(),
      threads: () => [{ name: 'main', state: 'running', connections: records.totals().live, restarts: 0 }],
      inspectors: () => [],
      holdings: async () => {
        const maps = { ...proxies.sizes, open_records: records.totals().live };
        return [['main', { ...threadUsage(), maps, caches: { tls_contexts: contexts.size } }]];
      },
      settle: async () => {},
    },
    setBudgets: (table) => proxies.setBudgets(table),
    setLogFilter: () => {},
  };
}
