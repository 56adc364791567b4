/** What the agent tells an operator beyond `/config_dump`: the JSON of `/status`, `/connections` and `/explain`. */
import type { Reason, ReasonCode } from '../../base/reasons.ts';
import type { IdentityStatus } from '../../identity/certificate-entry.ts';
import type { TrafficTotals } from '../../telemetry/connection-records.ts';
import type { ConnectionView } from '../../telemetry/connection-view.ts';
import type { NamedUse } from '../../telemetry/workload-use.ts';

export interface PodView {
  readonly uid: string;
  readonly name: string;
  readonly namespace: string;
  readonly serviceAccount: string;
  readonly state: 'Up' | 'Pending';
  readonly lastError?: { readonly code: string; readonly message: string };
  /** How often the redirection had to be put back. */
  readonly repairs: number;
  /** What goes past the agent although the pod is enrolled: the CNI agent did not write those rules. */
  readonly notRedirected?: readonly { readonly direction: string; readonly text: string }[];
}

/** The control plane, as this agent sees it. */
export interface ControlPlaneView {
  readonly isConnected: boolean;
  /** It has told the whole mesh at least once, or it was kept from before. */
  readonly isComplete: boolean;
  /** Something it told was refused and has not been told again. */
  readonly isBehind: boolean;
}

export interface EnrolmentView {
  /** Who says which pods are captured. */
  readonly source: string;
  /** Why it cannot say so now; what it said before is in force. */
  readonly lastError?: string;
}

export interface MeshView {
  /** Where the mesh state comes from: control plane, mesh file, or both. */
  readonly source: string;
  /** When the mesh file was loaded, RFC 3339. */
  readonly lastLoadAt?: string;
  /** What is wrong now with the source; the last good state is in force. */
  readonly lastError?: string;
  readonly controlPlane?: ControlPlaneView;
  readonly workloads: number;
  readonly services: number;
  readonly policies: number;
  readonly rejectedPolicies: number;
}

export interface CertificatesView {
  /** Where they come from. */
  readonly source: string;
  readonly total: number;
  readonly unavailable: number;
  /** RFC 3339. */
  readonly soonestExpiry?: string;
  /** What the first identity that has a problem says. */
  readonly lastError?: string;
  readonly revocation?: RevocationView;
}

/** Revocation lists, when some are configured. */
export interface RevocationView {
  readonly path: string;
  readonly lists: number;
  /** Certificates on them. */
  readonly revoked: number;
  /** RFC 3339; absent before the first good version. */
  readonly loadedAt?: string;
  /** The newest version was refused for this. */
  readonly lastError?: string;
}

/** `GET /certificates`: what `/config_dump` has no field for. */
export interface IdentitiesView {
  readonly source: string;
  readonly revocation?: RevocationView;
  readonly identities: readonly IdentityStatus[];
}

/** A thread that carries traffic. */
export interface WorkerView {
  readonly name: string;
  readonly state: string;
  readonly connections: number;
  /** How often another one took its place. */
  readonly restarts: number;
}

/** What becomes of connections that cannot move when another agent takes over. */
export interface HandOverView {
  readonly holdMs: number;
  readonly holdMemoryMib: number;
  /** Agents before this one that still carry such connections, the latest first. */
  readonly held: readonly HeldView[];
}

export interface HeldView {
  readonly pid: number;
  readonly version: string;
  readonly connections: number;
  /** RFC 3339. */
  readonly since: string;
  readonly until: string;
}

/** `GET /status`. */
export interface StatusView {
  readonly node: string;
  readonly version: string;
  readonly startedAt: string;
  readonly uptimeSeconds: number;
  readonly isReady: boolean;
  readonly pending: readonly string[];
  readonly listeners: readonly { readonly component: string; readonly address: string }[];
  readonly enrolment: EnrolmentView;
  readonly pods: readonly PodView[];
  readonly mesh: MeshView;
  readonly certificates: CertificatesView;
  readonly connections: TrafficTotals;
  readonly workers: readonly WorkerView[];
  readonly handOver: HandOverView;
}

/** `GET /connections`: open ones, oldest first, and the refused and cut ones still remembered, newest first. */
export interface ConnectionsView {
  readonly open: readonly ConnectionView[];
  readonly refused: readonly ConnectionView[];
}

/** `GET /usage`: what each workload has used since its pod is served, and holds now. Totals of one moment. */
export interface UsageView {
  /** When, from an arbitrary origin: for rates between two views. */
  readonly atMs: number;
  readonly workloads: readonly NamedUse[];
}

/** `GET /explain?id=…`. */
export interface ExplainView {
  readonly connection: ConnectionView;
  readonly reason?: Reason & { readonly code: ReasonCode };
}
