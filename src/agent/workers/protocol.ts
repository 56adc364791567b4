/** What the main thread and a worker say to each other. Plain data only; a version is not needed, both are of one build. */
import type { StopMode } from '../../capture/capture-contract.ts';
import type { TlsPolicy } from '../../identity/tls-policy.ts';
import type { Lane } from '../../model/lane.ts';
import type {
  DnsQuestion,
  DnsVerdict,
  InboundQuestion,
  InboundVerdict,
  OutboundQuestion,
  OutboundVerdict,
  TlsMaterial,
  VerdictPush,
} from '../../model/verdict.ts';
import type { Hand } from '../../model/verdict-cache.ts';
import type { Departed } from '../../proxy/departure.ts';
import type { Inheritance, InheritedConnection, InheritedListener, TunnelNeeds } from '../../proxy/inheritance.ts';
import type { ClaimedStream, ProxySettings, StreamClaim } from '../../proxy/settings.ts';
import type { Netns } from '../../sys/sys.ts';
import type { ConnectionView } from '../../telemetry/connection-view.ts';
import type { DnsGains } from '../../telemetry/dns-gains.ts';
import type { Holdings } from '../../telemetry/thread-series.ts';
import type { TrafficReport } from '../../telemetry/traffic-report.ts';
import type { WorkloadUse } from '../../telemetry/workload-use.ts';
import type { ConnectionsView } from '../admin/views.ts';
import type { BudgetTable } from '../budgets.ts';
import type { ServedPod } from '../data-plane.ts';
import type { Inspection } from '../thread-inspector.ts';
import type { BusyPod } from './busy-pods.ts';

/** Exit code of a worker that met a defect; as EX_SOFTWARE of sysexits.h. */
export const EXIT_DEFECT = 70;

/** What a worker is given at its birth. */
export interface WorkerStart {
  readonly name: string;
  readonly settings: ProxySettings;
  readonly tls: TlsPolicy;
  readonly drainGraceMs: number;
  readonly holdMs: number;
  readonly logFormat: 'text' | 'json';
  readonly logFilter: string;
  /** Absent: all have the standard one of the settings. */
  readonly budgets: BudgetTable | undefined;
  /** Where log lines go that the main thread does not take. */
  readonly logFd: number;
  /** `ownNetnsFd` of the main thread. */
  readonly netnsFd: number;
  /** `Generation`s of the verdict authority. */
  readonly generation: SharedArrayBuffer;
  readonly certificateGeneration: SharedArrayBuffer;
  /** See `Heartbeat`. */
  readonly beat: SharedArrayBuffer;
  /** Absent: nobody wants to know who is busy. */
  readonly lane: Lane | undefined;
}

/** An answer, and the generation of what it was made of. */
export interface Dated<Value> {
  readonly value: Value;
  readonly generation: number;
}

/** A question whose verdict chance may have part in. */
export type Draw<Question, Verdict> = (ask: {
  readonly question: Question;
  /** Verdicts wanted at most. */
  readonly count: number;
}) => Promise<Hand<Verdict>>;

export interface InboundReply {
  readonly verdict: InboundVerdict;
  readonly generation: number;
  /** Present when the verdict may be used again. */
  readonly ticket?: number;
}

/** A connection that was allowed by an earlier verdict. */
export type TicketUse = readonly [connectionId: string, ticket: number, clientPort: number];

/** What happened in a worker since its last report. Sent one at a time, so that a busy main thread gets fewer and larger ones. */
export interface WorkerReport {
  readonly traffic: TrafficReport;
  readonly dns: DnsGains;
  readonly lines: readonly string[];
  readonly ticketUses: readonly TicketUse[];
  /** Connections that ended, or were refused after they were asked about. */
  readonly released: readonly string[];
  /** Tickets that will not be used any more. */
  readonly ticketsLeft: readonly number[];
}

/** Answered by the main thread. */
export type MainCalls = {
  readonly outbound: Draw<OutboundQuestion, OutboundVerdict>;
  readonly resolve: Draw<DnsQuestion, DnsVerdict>;
  readonly inbound: (question: InboundQuestion) => Promise<InboundReply>;
  readonly identityOf: (podUid: string) => Promise<Dated<string>>;
  readonly certificate: (identity: string) => Promise<Dated<TlsMaterial>>;
  readonly report: (report: WorkerReport) => void;
  /** A parked stream that another worker may have: its descriptors are the caller's. */
  readonly claim: (claim: StreamClaim) => Promise<ClaimedStream>;
  /** Pods that it works for, told again when that is not so any more. */
  readonly busy: (pods: readonly BusyPod[]) => void;
  /** Peers attack a pod that it serves, told once a second while that goes on. */
  readonly attacked: (podUid: string) => void;
  /** The worker can start pods. */
  readonly ready: (nothing: undefined) => void;
};

export interface PodStart {
  /** Unique in this process; a UID may come back. */
  readonly id: number;
  readonly pod: ServedPod;
  /** Owned by the main thread, open until the pod has stopped in every worker. */
  readonly netns: Pick<Netns, 'fd' | 'path' | 'id'>;
}

export interface PodInheritance {
  readonly pod: PodStart;
  /** Its descriptors stay the main thread's: the worker makes copies. */
  readonly inherited: Inheritance;
}

export interface PodAdoption {
  readonly id: number;
  /** As for `PodInheritance`. */
  readonly connections: readonly InheritedConnection[];
}

export interface PodNeeds {
  readonly id: number;
  readonly needs: TunnelNeeds;
}

export interface PodStop {
  readonly id: number;
  readonly mode: StopMode;
}

/** Answered by a worker. */
export type WorkerCalls = {
  /** Binds its listeners, or throws; of a pod at rest, too. */
  readonly startPod: (start: PodInheritance) => void;
  /** See `MovableSet`. */
  readonly needs: (id: number) => Promise<TunnelNeeds>;
  readonly warm: (needs: PodNeeds) => Promise<void>;
  /** Leaves its listeners to the main thread, descriptors included. */
  readonly leaveListeners: (id: number) => Promise<readonly InheritedListener[]>;
  /** The same until `startPod`. */
  readonly rest: (id: number) => readonly InheritedListener[];
  /** As above, of connections. */
  readonly moveSome: (id: number) => Promise<Departed>;
  readonly adopt: (adoption: PodAdoption) => Promise<void>;
  /** See `PodProxies.surrender`. */
  readonly surrender: (claim: StreamClaim) => Promise<ClaimedStream>;
  /** See `DataPlane.hasten`. */
  readonly hasten: (nothing: undefined) => void;
  /** As those of `DataPlane`, of this worker. */
  readonly shed: (count: number) => number;
  readonly trim: (nothing: undefined) => Promise<void>;
  readonly stopPod: (stop: PodStop) => Promise<void>;
  readonly connections: (nothing: undefined) => ConnectionsView;
  readonly usage: (nothing: undefined) => readonly WorkloadUse[];
  readonly find: (id: string) => ConnectionView | undefined;
  readonly holdings: (nothing: undefined) => Holdings;
  /** Resolves when all that happened until now was reported. */
  readonly settle: (nothing: undefined) => Promise<void>;
  /** Its part of what pods may use. */
  readonly setBudgets: (table: BudgetTable) => void;
  readonly setLogFilter: (filter: string) => void;
  readonly inspect: (inspection: Inspection) => Promise<unknown>;
  readonly push: (push: VerdictPush) => void;
  /** Ends the worker once all it has to say was said. */
  readonly finish: (nothing: undefined) => Promise<void>;
};
