/** The mesh at one moment: an immutable snapshot of everything known, with the look-ups of datapath.md §4.1. */
import { append } from '../base/multimap.ts';
import type { PolicySet } from './authz.ts';
import type { Policy, RejectedPolicy } from './policy.ts';
import { PolicyIndex } from './policy-index.ts';
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

export class MeshIndex {
  readonly state: MeshState;
  readonly services: ServiceIndex;
  readonly workloads: WorkloadIndex;
  readonly #policies: PolicyIndex;
  /** Service key → member workloads, whether or not the service is known. */
  readonly #members = new Map<string, Workload[]>();
  readonly #maxCapacities = new WeakMap<Service, number>();

  constructor(state: MeshState) {
    this.state = state;
    this.services = new ServiceIndex(state.services);
    this.workloads = new WorkloadIndex(state.workloads);
    this.#policies = new PolicyIndex(state.policies, state.rejectedPolicies);
    for (const workload of this.workloads.all()) {
      for (const key of workload.services.keys()) append(this.#members, key, workload);
    }
  }

  policiesFor(workload: Workload): PolicySet {
    return this.#policies.forWorkload(workload);
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

  /** All members, in the order they were told, whether or not they may receive traffic. */
  members(service: Service): readonly Workload[] {
    return this.#members.get(serviceKey(service)) ?? [];
  }

  /** Members that may receive traffic. */
  endpoints(service: Service): readonly Workload[] {
    return this.members(service).filter((workload) => isOpen(service, workload));
  }

  /** Largest capacity among the members of a service; looked up once per snapshot. */
  maxCapacity(service: Service): number {
    let max = this.#maxCapacities.get(service);
    if (max === undefined) {
      max = this.members(service).reduce((most, { capacity }) => Math.max(most, capacity), 0);
      this.#maxCapacities.set(service, max);
    }
    return max;
  }

  isMember(service: Service, workload: Workload): boolean {
    return workload.services.has(serviceKey(service));
  }

  /** Healthy and total number of members. */
  memberCounts(service: Service): { readonly healthy: number; readonly total: number } {
    const members = this.members(service);
    return { healthy: members.filter(({ status }) => status === 'Healthy').length, total: members.length };
  }

  /** Services `workload` is a member of: canonical ones first, otherwise in its own order. Unknown ones are left out. */
  servicesOf(workload: Workload): readonly Service[] {
    const services = [...workload.services.keys()].flatMap((key) => this.services.byKey(key) ?? []);
    return services.toSorted((a, b) => Number(b.canonical) - Number(a.canonical));
  }

  /** Endpoints whose service record has not arrived: service key → endpoints. */
  *stagedEndpoints(): Generator<readonly [string, readonly Endpoint[]]> {
    for (const [key, members] of this.#members) {
      if (this.services.byKey(key) === undefined) yield [key, members.map((workload) => endpointOf(key, workload))];
    }
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
