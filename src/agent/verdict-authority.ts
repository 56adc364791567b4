/**
 * The owner's end of the verdict port (DESIGN.md, decision 4): judges connections against the current mesh, remembers
 * inbound ones while they live, and re-judges them when the mesh changes (datapath facts §4.5 step 8, §4.8).
 */
import type { Clock } from '../base/clock.ts';
import { MeshError } from '../base/errors.ts';
import { formatHostPort } from '../base/ip.ts';
import type { Logger } from '../base/log.ts';
import type { Random } from '../base/random.ts';
import type { DataPathSettings } from '../model/data-path-settings.ts';
import { inboundVerdict, reauthorize, type TrackedConnection } from '../model/inbound-verdict.ts';
import { EMPTY_MESH, MeshIndex, type MeshState } from '../model/mesh-index.ts';
import { outboundSelfCall, outboundVerdict, unknownWorkload } from '../model/outbound-verdict.ts';
import { workloadIdentity } from '../model/spiffe.ts';
import type {
  InboundQuestion,
  InboundVerdict,
  OutboundQuestion,
  OutboundVerdict,
  Refusal,
  TlsMaterial,
  VerdictPort,
  VerdictPush,
} from '../model/verdict.ts';
import type { Workload } from '../model/workload.ts';

/** A pod may connect before its record arrives (datapath facts §0, "Wait for local workload"). */
const WORKLOAD_WAIT_MS = 5_000;

/** What capture knows of an enrolled pod. */
export interface EnrolledPod {
  readonly uid: string;
  readonly name: string;
  readonly namespace: string;
  readonly serviceAccount: string;
}

export interface Certificates {
  get(identity: string): Promise<TlsMaterial>;
  prefetch(identity: string): void;
  forget(identity: string): void;
}

export interface AuthoritySettings extends DataPathSettings {
  readonly nodeName: string;
  /** `AUTHZ_POLICY_INFO_LOGGING`: dry-run matches at info instead of debug. */
  readonly isPolicyLogAtInfo: boolean;
}

export interface AuthorityDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly certificates: Certificates;
  readonly log: Logger;
}

export class VerdictAuthority implements VerdictPort {
  readonly #settings: AuthoritySettings;
  readonly #deps: AuthorityDeps;
  readonly #pods = new Map<string, EnrolledPod>();
  readonly #tracked = new Map<string, TrackedConnection>();
  readonly #listeners = new Set<(push: VerdictPush) => void>();
  /** Woken at each change of mesh or pods; bounded by the connections that wait. */
  readonly #waiters = new Set<() => void>();
  /** Identities asked for because a local pod has them. */
  #prefetched = new Set<string>();
  #index = new MeshIndex(EMPTY_MESH);

  constructor(settings: AuthoritySettings, deps: AuthorityDeps) {
    this.#settings = settings;
    this.#deps = deps;
  }

  /** The current mesh: read by admin views, never changed. */
  get index(): MeshIndex {
    return this.#index;
  }

  get trackedCount(): number {
    return this.#tracked.size;
  }

  /** Replaces the mesh at once and closes the live connections that it no longer allows. */
  update(state: MeshState): void {
    this.#index = new MeshIndex(state);
    this.#changed();
    this.#rejudge();
  }

  addPod(pod: EnrolledPod): void {
    this.#pods.set(pod.uid, pod);
    this.#changed();
  }

  /** Does nothing when another pod took the UID meanwhile (same UID, new netns). */
  removePod(pod: EnrolledPod): void {
    if (this.#pods.get(pod.uid) !== pod) return;
    this.#pods.delete(pod.uid);
    this.#changed();
  }

  /** Tells the data plane that the material of an identity was renewed or its roots changed. */
  certificateChanged(identity: string): void {
    this.#push({ kind: 'certificate', identity });
  }

  async outbound(question: OutboundQuestion): Promise<OutboundVerdict> {
    const refusal = outboundSelfCall(question.target, this.#settings);
    if (refusal !== undefined) return { kind: 'refuse', refusal };
    const source = this.#local(question.podUid) ?? (await this.#waitForLocal(question.podUid));
    if (source === undefined) return { kind: 'refuse', refusal: this.#unknown(question.podUid) };
    return outboundVerdict(this.#index, source, question, { settings: this.#settings, random: this.#deps.random });
  }

  async inbound(question: InboundQuestion): Promise<InboundVerdict> {
    const local = this.#local(question.podUid) ?? (await this.#waitForLocal(question.podUid));
    if (local === undefined) return { kind: 'refuse', refusal: this.#unknown(question.podUid) };
    const { verdict, tracked, dryRun } = inboundVerdict(this.#index, local, question, this.#settings);
    for (const match of dryRun) this.#logDryRun(match.action, match.policy, question);
    if (tracked !== undefined && verdict.kind === 'accept') this.#tracked.set(question.connectionId, tracked);
    return verdict;
  }

  release(connectionId: string): void {
    this.#tracked.delete(connectionId);
  }

  async identityOf(podUid: string): Promise<string> {
    const local = this.#local(podUid) ?? (await this.#waitForLocal(podUid));
    if (local !== undefined) return workloadIdentity(local);
    const { code, text } = this.#unknown(podUid);
    throw new MeshError(code, text);
  }

  certificate(identity: string): Promise<TlsMaterial> {
    return this.#deps.certificates.get(identity);
  }

  subscribe(listener: (push: VerdictPush) => void): Disposable {
    this.#listeners.add(listener);
    return { [Symbol.dispose]: () => void this.#listeners.delete(listener) };
  }

  #local(podUid: string): Workload | undefined {
    const pod = this.#pods.get(podUid);
    return pod === undefined ? undefined : this.#index.localWorkload({ ...pod, node: this.#settings.nodeName });
  }

  async #waitForLocal(podUid: string): Promise<Workload | undefined> {
    const { promise, resolve } = Promise.withResolvers<Workload | undefined>();
    const look = (): void => {
      const workload = this.#local(podUid);
      if (workload !== undefined) resolve(workload);
    };
    this.#waiters.add(look);
    using _deadline = this.#deps.clock.after(WORKLOAD_WAIT_MS, () => resolve(undefined));
    try {
      return await promise;
    } finally {
      this.#waiters.delete(look);
    }
  }

  #changed(): void {
    for (const look of [...this.#waiters]) look();
    const wanted = new Set<string>();
    for (const uid of this.#pods.keys()) {
      const workload = this.#local(uid);
      if (workload !== undefined) wanted.add(workloadIdentity(workload));
    }
    for (const identity of wanted.difference(this.#prefetched)) this.#deps.certificates.prefetch(identity);
    for (const identity of this.#prefetched.difference(wanted)) this.#deps.certificates.forget(identity);
    this.#prefetched = wanted;
  }

  #rejudge(): void {
    const revoked = new Map<string, { refusal: Refusal; connectionIds: string[] }>();
    for (const [id, tracked] of this.#tracked) {
      const refusal = reauthorize(this.#index, tracked);
      if (refusal === undefined) continue;
      const group = revoked.get(refusal.code) ?? { refusal, connectionIds: [] };
      group.connectionIds.push(id);
      revoked.set(refusal.code, group);
      const { source, destination } = tracked;
      this.#deps.log.info?.(refusal.text, { src: formatHostPort(source), dst: formatHostPort(destination) });
    }
    for (const { refusal, connectionIds } of revoked.values()) this.#push({ kind: 'revoke', connectionIds, refusal });
  }

  #push(push: VerdictPush): void {
    for (const listener of [...this.#listeners]) listener(push);
  }

  #unknown(podUid: string): Refusal {
    const pod = this.#pods.get(podUid) ?? { name: podUid, namespace: '', serviceAccount: '' };
    return unknownWorkload(pod);
  }

  #logDryRun(action: 'Allow' | 'Deny', policy: string, { peer, local }: InboundQuestion): void {
    const { log } = this.#deps;
    const message = `dry-run: ${action.toLowerCase()} policy match`;
    const fields = { policy, src: formatHostPort(peer), dst: formatHostPort(local) };
    if (this.#settings.isPolicyLogAtInfo) log.info?.(message, fields);
    else log.debug?.(message, fields);
  }
}
