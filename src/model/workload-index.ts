/** Workloads by UID, by network and address, by host name, and by what the capture side knows of a local pod. */
import { append } from '../base/multimap.ts';
import type { Workload } from './workload.ts';

/** What identifies a captured pod on this node; no part of it comes from the network. */
export interface LocalPod {
  readonly node: string;
  readonly name: string;
  readonly namespace: string;
  readonly serviceAccount: string;
}

/** Immutable. Costs about two map slots per workload: keys are the strings of the records themselves. */
export class WorkloadIndex {
  readonly #byUid = new Map<string, Workload>();
  /** network → address → best workload there. */
  readonly #byAddress = new Map<string, Map<string, Workload>>();
  /** hostname → workloads that have it. Only records with a host name are here. */
  readonly #byHostname = new Map<string, Workload[]>();
  /** Local pods of the node last asked for: one node per agent, so one entry is enough. */
  #local: { readonly node: string; readonly byName: ReadonlyMap<string, readonly Workload[]> } | undefined;

  constructor(workloads: Iterable<Workload>) {
    for (const workload of workloads) this.#byUid.set(workload.uid, workload);
    for (const workload of this.#byUid.values()) this.#add(workload);
  }

  all(): Iterable<Workload> {
    return this.#byUid.values();
  }

  byUid(uid: string): Workload | undefined {
    return this.#byUid.get(uid);
  }

  /** Never a host-network workload: many of them share the address of their node. */
  byAddress(network: string, ip: string): Workload | undefined {
    return this.#byAddress.get(network)?.get(ip);
  }

  byHostname(namespace: string, hostname: string): Workload | undefined {
    return this.#byHostname.get(hostname)?.find((workload) => workload.namespace === namespace);
  }

  /** The record of a captured pod: all four parts must agree (zt#777, zt#979). */
  local({ node, name, namespace, serviceAccount }: LocalPod): Workload | undefined {
    if (this.#local?.node !== node) this.#local = { node, byName: this.#localByName(node) };
    return this.#local.byName
      .get(name)
      ?.find((workload) => workload.namespace === namespace && workload.serviceAccount === serviceAccount);
  }

  #add(workload: Workload): void {
    if (workload.hostname !== '') append(this.#byHostname, workload.hostname, workload);
    if (workload.networkMode === 'HostNetwork') return;
    for (const ip of workload.ips) this.#addAddress(ip, workload);
  }

  #addAddress(ip: string, workload: Workload): void {
    const addresses = this.#byAddress.get(workload.network) ?? new Map<string, Workload>();
    this.#byAddress.set(workload.network, addresses);
    const current = addresses.get(ip);
    // Equal rank: the later record wins, as in ztunnel.
    if (current === undefined || addressRank(workload) >= addressRank(current)) addresses.set(ip, workload);
  }

  #localByName(node: string): Map<string, Workload[]> {
    const byName = new Map<string, Workload[]>();
    for (const workload of this.#byUid.values()) {
      if (workload.node === node) append(byName, workload.name, workload);
    }
    return byName;
  }
}

/** Who owns an address that several records claim: a pod before anything else, then one that speaks HBONE. */
function addressRank(workload: Workload): number {
  return (workload.uid.includes('//Pod/') ? 2 : 0) + (workload.protocol === 'HBONE' ? 1 : 0);
}
