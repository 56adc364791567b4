/** The captured pods of this node: their records in the mesh, who waits for one, and which identities they need. */
import { type Clock, deadline } from '../../base/clock.ts';
import { append, detach } from '../../base/multimap.ts';
import type { MeshIndex } from '../../model/mesh-index.ts';
import type { MeshUpdate } from '../../model/mesh-update.ts';
import { unknownWorkload } from '../../model/outbound-verdict.ts';
import { workloadIdentity } from '../../model/spiffe.ts';
import type { Refusal } from '../../model/verdict.ts';
import type { Workload } from '../../model/workload.ts';
import { isOn } from '../../model/workload-index.ts';
import type { IdentityUses } from './identity-uses.ts';

/** A pod may connect before its record arrives. */
const WORKLOAD_WAIT_MS = 5_000;

/** What capture knows of an enrolled pod. */
export interface EnrolledPod {
  readonly uid: string;
  readonly name: string;
  readonly namespace: string;
  readonly serviceAccount: string;
}

/** The captured pods that an update touches. */
export interface Touched {
  /** `namespace/name` of those whose record it brings, changes or takes away. */
  readonly names: ReadonlySet<string>;
  /** Other policies than before may select one of them. */
  readonly isPolicyChange: boolean;
}

export interface LocalPodsDeps {
  /** Name of this node; empty where it does not matter. */
  readonly node: string;
  readonly clusterId?: string | undefined;
  readonly index: MeshIndex;
  readonly clock: Clock;
  readonly uses: IdentityUses;
}

export class LocalPods {
  readonly #deps: LocalPodsDeps;
  readonly #byUid = new Map<string, EnrolledPod>();
  readonly #byName = new Map<string, EnrolledPod[]>();
  /** Pod UID → who waits for its record; bounded by the connections that wait. */
  readonly #waiting = new Map<string, (() => void)[]>();
  /** Pod UID → identity of its record. */
  readonly #identities = new Map<string, string>();

  constructor(deps: LocalPodsDeps) {
    this.#deps = deps;
  }

  /** Why a pod without a record is refused everything. */
  unknown(podUid: string): Refusal {
    return unknownWorkload(this.#byUid.get(podUid) ?? { name: podUid, namespace: '', serviceAccount: '' });
  }

  add(pod: EnrolledPod): void {
    const former = this.#byUid.get(pod.uid);
    if (former !== undefined) detach(this.#byName, nameOf(former), former);
    this.#byUid.set(pod.uid, pod);
    append(this.#byName, nameOf(pod), pod);
    this.refresh([nameOf(pod)]);
  }

  /** Does nothing when another pod took the UID meanwhile (same UID, new netns). */
  remove(pod: EnrolledPod): void {
    if (this.#byUid.get(pod.uid) !== pod) return;
    this.#byUid.delete(pod.uid);
    detach(this.#byName, nameOf(pod), pod);
    this.#deps.uses.change(this.#identities, [[pod.uid, undefined]]);
  }

  /** The record of a captured pod, or `undefined` while nobody told us about it. */
  workload(podUid: string): Workload | undefined {
    const pod = this.#byUid.get(podUid);
    const { index, node, clusterId } = this.#deps;
    return pod && index.localWorkload({ ...pod, node, clusterId });
  }

  /** The captured pod that a record describes; `undefined` also while two of that name are there, one of them to go. */
  uidOf(record: Workload): string | undefined {
    const pods = this.#byName.get(nameOf(record)) ?? [];
    const [found, ...others] = pods.filter(({ uid }) => this.workload(uid)?.uid === record.uid);
    return others.length === 0 ? found?.uid : undefined;
  }

  /** Settles when the record is there or did not come in time. Look again then: it may have changed or gone meanwhile. */
  async waitFor(podUid: string): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    append(this.#waiting, podUid, resolve);
    using _deadline = deadline(this.#deps.clock, WORKLOAD_WAIT_MS, resolve);
    try {
      await promise;
    } finally {
      detach(this.#waiting, podUid, resolve);
    }
  }

  /** What an update means for the captured pods. To be asked before it is applied. */
  touchedBy(update: MeshUpdate): Touched {
    const names = new Set<string>();
    let isPolicyChange = false;
    if (this.#byUid.size === 0) return { names, isPolicyChange };
    const { workloads } = this.#deps.index;
    for (const record of update.workloads) {
      const former = workloads.byUid(record.uid);
      const ours = [record, former].flatMap((one) => this.#capturedName(one) ?? []);
      for (const name of ours) names.add(name);
      if (ours.length > 0 && (former === undefined || !isSelectedAlike(former, record))) isPolicyChange = true;
    }
    for (const uid of update.removedWorkloads) {
      const name = this.#capturedName(workloads.byUid(uid));
      if (name !== undefined) names.add(name);
    }
    return { names, isPolicyChange };
  }

  /** Absent when the record is that of no captured pod. */
  #capturedName(record: Workload | undefined): string | undefined {
    if (record === undefined || !isOn(record, this.#deps.node)) return undefined;
    const name = nameOf(record);
    return this.#byName.has(name) ? name : undefined;
  }

  /** Looks again at the records of the pods with these names: who waits is served, identities are fetched or forgotten. */
  refresh(names: Iterable<string>): void {
    const changes = [...names]
      .flatMap((name) => this.#byName.get(name) ?? [])
      .map(({ uid }) => {
        const workload = this.workload(uid);
        if (workload !== undefined) for (const wake of this.#waiting.get(uid) ?? []) wake();
        return [uid, workload && workloadIdentity(workload)] as const;
      });
    this.#deps.uses.change(this.#identities, changes);
  }
}

/** `namespace/name`. */
function nameOf({ namespace, name }: { readonly namespace: string; readonly name: string }): string {
  return `${namespace}/${name}`;
}

/** Namespace and policy keys: all that a record decides about which policies select it. */
function isSelectedAlike(a: Workload, b: Workload): boolean {
  const keys = b.authorizationPolicies;
  return (
    a.namespace === b.namespace &&
    a.authorizationPolicies.length === keys.length &&
    a.authorizationPolicies.every((key, at) => key === keys[at])
  );
}
