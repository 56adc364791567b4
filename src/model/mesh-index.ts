/** The mesh as known now, kept current update by update, and how it is looked up. */
import type { PolicySet } from './authz.ts';
import { MemberIndex, type Members } from './member-index.ts';
import type { MeshUpdate } from './mesh-update.ts';
import { type Policy, policyKey, type RejectedPolicy } from './policy.ts';
import { PolicyIndex } from './policy-index.ts';
import { RecordStore } from './record-store.ts';
import { ServiceIndex } from './service-index.ts';
import { type Endpoint, type Service, serviceKey, type Workload } from './workload.ts';
import { type LocalPod, WorkloadIndex } from './workload-index.ts';

/** Everything one source of mesh state says, complete. */
export interface MeshState {
  readonly workloads: readonly Workload[];
  readonly services: readonly Service[];
  readonly policies: readonly Policy[];
  readonly rejectedPolicies: readonly RejectedPolicy[];
}

export const EMPTY_MESH: MeshState = { workloads: [], services: [], policies: [], rejectedPolicies: [] };

/** What an address is, as seen by a client. A service and a workload at once is possible. */
export interface AddressOwner {
  readonly service?: Service;
  readonly workload?: Workload;
}

const NO_PORTS: ReadonlyMap<number, number> = new Map();

/**
 * Changes only inside `apply`, in one turn: who reads without waiting sees one state. After any updates it answers as an
 * index made of the resulting state would, where a record that was replaced counts as told last.
 */
export class MeshIndex {
  readonly services = new ServiceIndex();
  readonly workloads = new WorkloadIndex();
  readonly policies = new PolicyIndex();
  readonly #members = new MemberIndex();
  readonly #records = new RecordStore();

  constructor(state: MeshState = EMPTY_MESH) {
    this.apply({ ...state, removedWorkloads: [], removedServices: [], removedPolicies: [] });
  }

  apply(update: MeshUpdate): void {
    for (const service of update.services) this.services.set(this.#records.service(service));
    for (const key of update.removedServices) this.services.delete(key);
    this.#dropWorkloads(update.workloads.map(({ uid }) => uid));
    this.#addWorkloads(update.workloads);
    this.#dropWorkloads(update.removedWorkloads);
    for (const policy of update.policies) this.policies.set(policy);
    for (const policy of update.rejectedPolicies) this.policies.reject(policy);
    for (const key of update.removedPolicies) this.policies.delete(key);
  }

  /** The update after which this index holds exactly `state`. */
  updateTo(state: MeshState): MeshUpdate {
    const uids = new Set(state.workloads.map(({ uid }) => uid));
    const services = new Set(state.services.map(serviceKey));
    const policies = new Set([...state.policies, ...state.rejectedPolicies].map(policyKey));
    const known = [...this.policies.accepted(), ...this.policies.rejected()];
    return {
      ...state,
      removedWorkloads: [...this.workloads.all()].map(({ uid }) => uid).filter((uid) => !uids.has(uid)),
      removedServices: [...this.services.all()].map(serviceKey).filter((key) => !services.has(key)),
      removedPolicies: known.map(policyKey).filter((key) => !policies.has(key)),
    };
  }

  policiesFor(workload: Workload): PolicySet {
    return this.policies.forWorkload(workload);
  }

  /** The record of a captured pod, or `undefined` while nobody told us about it. */
  localWorkload(pod: LocalPod): Workload | undefined {
    return this.workloads.local(pod);
  }

  /**
   * Who owns an address. An exact VIP comes before a workload, a workload before a CIDR VIP: a pod inside the range of
   * an external service must stay that pod, or its traffic would leave in plaintext (ztunnel takes the range first).
   */
  owner(network: string, ip: string, clientNamespace?: string): AddressOwner {
    const exact = this.services.byVip(network, ip, clientNamespace);
    if (exact !== undefined) return { service: exact };
    const workload = this.workloads.byAddress(network, ip);
    if (workload !== undefined) return { workload };
    const range = this.services.byCidr(network, ip, clientNamespace);
    return range === undefined ? {} : { service: range };
  }

  /** Whether or not they may receive traffic, and whether or not the service is known: a change of it keeps them. */
  members(service: Service): Members {
    return this.#members.of(serviceKey(service));
  }

  /** Members that may receive traffic. */
  endpoints(service: Service): readonly Workload[] {
    return this.members(service).all.filter((workload) => isOpen(service, workload));
  }

  isMember(service: Service, workload: Workload): boolean {
    return workload.services.has(serviceKey(service));
  }

  /** Healthy and total number of members. */
  memberCounts(service: Service): { readonly healthy: number; readonly total: number } {
    const members = this.members(service).all;
    return { healthy: members.filter(({ status }) => status === 'Healthy').length, total: members.length };
  }

  /** Services `workload` is a member of: canonical ones first, otherwise in its own order. Unknown ones are left out. */
  servicesOf(workload: Workload): readonly Service[] {
    const services = [...workload.services.keys()].flatMap((key) => this.services.byKey(key) ?? []);
    return services.toSorted((a, b) => Number(b.canonical) - Number(a.canonical));
  }

  /** Endpoints whose service record has not arrived: service key → endpoints. */
  *stagedEndpoints(): Generator<readonly [string, readonly Endpoint[]]> {
    for (const key of this.#members.keys()) {
      if (this.services.byKey(key) !== undefined) continue;
      yield [key, this.#members.of(key).all.map((workload) => endpointOf(key, workload))];
    }
  }

  #addWorkloads(workloads: readonly Workload[]): void {
    for (const workload of workloads) {
      // Told twice in one update: the later record counts.
      if (this.workloads.byUid(workload.uid) !== undefined) this.#dropWorkloads([workload.uid]);
      const record = this.#records.workload(workload);
      this.workloads.add(record);
      this.#members.add(record);
    }
  }

  #dropWorkloads(uids: readonly string[]): void {
    const known = uids.flatMap((uid) => this.workloads.byUid(uid) ?? []);
    if (known.length === 0) return;
    const gone = new Set(known);
    for (const workload of gone) this.workloads.delete(workload);
    this.#members.drop(gone);
  }
}

/** May receive traffic: healthy, or the service takes everybody. */
export function isOpen(service: Service, workload: Workload): boolean {
  return workload.status === 'Healthy' || service.loadBalancer.healthPolicy === 'AllowAll';
}

/** `workload` as a member of the service `key`. */
export function endpointOf(key: string, workload: Workload): Endpoint {
  return { workloadUid: workload.uid, ports: workload.services.get(key) ?? NO_PORTS, status: workload.status };
}
