/** The pods that a CNI agent told us over ZDS, with the namespaces it passed. */
import { type Clock, withDeadline } from '../base/clock.ts';
import { MeshError, toMeshError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { reasonOf } from '../base/reasons.ts';
import type { Netns, Sys } from '../sys/sys.ts';
import type { ZdsWorkload } from '../wire/zds.ts';
import { isSameNetns, NodeNetns } from './netns-claims.ts';
import type { CapturedPod, PodOptions, PodSink } from './pod-source.ts';

/** Far above what a node runs; each holds a descriptor. */
const MAX_PODS = 10_000;
/** The CNI agent takes an answer after 5 s for that to its next message. */
const ANSWER_WITHIN_MS = 4_000;

/** Pods named in one log line. */
const MAX_NAMED = 5;

export interface ZdsPodsDeps {
  readonly sys: Sys;
  readonly clock: Clock;
  readonly log: Logger;
  readonly sink: Pick<PodSink, 'upsert' | 'remove'>;
  /** The CNI agent has told all pods. */
  readonly onSnapshot: () => void;
}

/** Which redirection a pod has is the affair of its CNI agent. */
const OPTIONS: PodOptions = { isIngressMode: false, rerouteInterfaces: [] };

class ZdsPod implements CapturedPod {
  readonly uid: string;
  readonly name: string;
  readonly namespace: string;
  readonly serviceAccount: string;
  readonly options = OPTIONS;
  readonly netns: Netns;
  /** It could not be started when the CNI agent asked for it; it may run by now. */
  hasFailed = false;

  constructor(uid: string, { name, namespace, serviceAccount }: ZdsWorkload, netns: Netns) {
    this.uid = uid;
    this.name = name;
    this.namespace = namespace;
    this.serviceAccount = serviceAccount;
    this.netns = netns;
  }

  /** No path once the descriptor is closed: its number may be another pod's then. */
  get netnsPath(): string {
    return `/proc/self/fd/${this.netns.fd}`;
  }
}

/** Throws `CV-WIRE-MALFORMED` for what the protocol does not allow. */
export class ZdsPods implements Disposable {
  readonly #deps: ZdsPodsDeps;
  readonly #node: NodeNetns;
  readonly #pods = new Map<string, ZdsPod>();
  /** Pod UID → why what came for it was refused, for pods that are not among `#pods` for that. */
  readonly #refused = new Map<string, string>();
  /** The first of those that were missing at the last snapshot, so that they are said once. */
  #missing = '';
  /** Pods that the current connection told of; `undefined` once its snapshot is complete. */
  #snapshot: Set<string> | undefined = new Set();

  constructor(deps: ZdsPodsDeps) {
    this.#deps = deps;
    this.#node = new NodeNetns(deps.sys);
  }

  get isSnapshotComplete(): boolean {
    return this.#snapshot === undefined;
  }

  get size(): number {
    return this.#pods.size;
  }

  /** A new connection tells everything anew; what runs goes on meanwhile. */
  begin(): void {
    this.#snapshot = new Set();
  }

  /**
   * Takes `fd` over. Resolves when the pod is served, or with why not: then it is tried again until it works, unless the
   * descriptor itself is to blame.
   */
  async add(uid: string, workload: ZdsWorkload, fd: number): Promise<MeshError | undefined> {
    try {
      const pod = this.#accept(uid, workload, fd);
      this.#refused.delete(uid);
      return await this.#capture(pod);
    } catch (error) {
      // The pod is there all the same: one that runs must not end with the snapshot.
      if (this.#pods.has(uid)) this.#snapshot?.add(uid);
      return this.#refuse(uid, toMeshError(error, 'CV-NETNS'));
    }
  }

  /** The pod exists, its namespace is not known to the CNI agent. */
  keep(uid: string): void {
    if (this.#snapshot === undefined) throw violation('Keep after the snapshot');
    this.#note(uid);
  }

  /** Before the snapshot is complete, a pod that runs is left to its end; one that does not is given up at once. */
  async del(uid: string): Promise<void> {
    this.#snapshot?.delete(uid);
    this.#refused.delete(uid);
    if (this.#snapshot !== undefined && this.#pods.get(uid)?.hasFailed !== true) return;
    // Longer only holds up the next request: the pod ends all the same.
    await withDeadline(this.#remove(uid), this.#deps.clock, ANSWER_WITHIN_MS, late).catch(() => {});
  }

  snapshotSent(): void {
    const snapshot = this.#snapshot;
    if (snapshot === undefined) throw violation('a second SnapshotSent');
    for (const uid of [...this.#pods.keys()]) if (!snapshot.has(uid)) void this.#remove(uid);
    this.#sayMissing([...snapshot].filter((uid) => !this.#pods.has(uid)));
    this.#snapshot = undefined;
    this.#deps.onSnapshot();
  }

  /** Pods that run have their namespace open themselves. */
  [Symbol.dispose](): void {
    for (const { netns } of this.#pods.values()) netns[Symbol.dispose]();
    this.#pods.clear();
  }

  #accept(uid: string, workload: ZdsWorkload, fd: number): ZdsPod {
    using arrived = new DisposableStack();
    const netns = arrived.use(this.#deps.sys.adoptNetns(fd));
    this.#note(uid);
    this.#node.refuse(netns);
    const former = this.#pods.get(uid);
    const isSame = former !== undefined && isSameNetns(former.netns.id, netns.id);
    const pod = new ZdsPod(uid, workload, isSame ? former.netns : netns);
    if (!isSame) {
      former?.netns[Symbol.dispose]();
      arrived.move();
    }
    this.#pods.set(uid, pod);
    return pod;
  }

  /** Said once per pod and reason: the CNI agent asks again every few seconds. */
  #refuse(uid: string, error: MeshError): MeshError {
    if (this.#refused.get(uid) === error.message) return error;
    if (this.#refused.size >= MAX_PODS) this.#refused.clear();
    this.#refused.set(uid, error.message);
    const { next } = reasonOf(error.code);
    this.#deps.log.warn?.('pod refused', { uid, reason: error.code, error: error.message, next });
    return error;
  }

  /** Pods that exist and are not captured: no namespace came with them, or none that could be used. */
  #sayMissing(uids: readonly string[]): void {
    const missing = uids.toSorted().slice(0, MAX_NAMED).join(', ');
    if (missing !== '' && missing !== this.#missing) {
      this.#deps.log.warn?.('pods not captured: the CNI agent has not found their namespaces', {
        pods: uids.length,
        missing,
      });
    }
    this.#missing = missing;
  }

  async #capture(pod: ZdsPod): Promise<MeshError | undefined> {
    const { sink, clock } = this.#deps;
    const error = await withDeadline(sink.upsert(pod), clock, ANSWER_WITHIN_MS, late).catch(toMeshError);
    pod.hasFailed = error !== undefined;
    return error;
  }

  async #remove(uid: string): Promise<void> {
    const pod = this.#pods.get(uid);
    if (pod === undefined) return;
    this.#pods.delete(uid);
    const removed = this.#deps.sink.remove(uid);
    pod.netns[Symbol.dispose]();
    await removed;
  }

  #note(uid: string): void {
    const known = this.#snapshot ?? this.#pods;
    if (!known.has(uid) && known.size >= MAX_PODS) throw new MeshError('CV-LIMIT', `more than ${MAX_PODS} pods`);
    this.#snapshot?.add(uid);
  }
}

function late(): MeshError {
  return new MeshError('CV-LIMIT', `not done within ${ANSWER_WITHIN_MS / 1_000} s`);
}

function violation(problem: string): MeshError {
  return new MeshError('CV-WIRE-MALFORMED', `ZDS: ${problem}`, { problem });
}
