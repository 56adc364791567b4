/** Workloads by UID, by network and address, by host name, and by what the capture side knows of a local pod. */
import { addTo, append, detach, takeFrom } from '../base/multimap.ts';
import type { Workload } from './workload.ts';

/** What identifies a captured pod on this node; no part of it comes from the network. */
export interface LocalPod {
  /** Empty: whichever, because the agent serves one pod and does not know its node. */
  readonly node: string;
  readonly name: string;
  readonly namespace: string;
  readonly serviceAccount: string;
  /** Of the agent: nodes and pods of another cluster may have the same names. */
  readonly clusterId?: string | undefined;
}

/** Costs about two map slots per workload: keys are the strings of the records themselves. */
export class WorkloadIndex {
  readonly #byUid = new Map<string, Workload>();
  /** network → address → who claims it: nearly always one. */
  readonly #byAddress = new Map<string, Map<string, Workload | Claims>>();
  /** hostname → workloads that have it. Only records with a host name are here. */
  readonly #byHostname = new Map<string, Set<Workload>>();
  /** Pods of the node last asked for, by name: one node per agent, so one entry is enough. */
  #local: { readonly node: string; readonly byName: Map<string, Workload[]> } | undefined;

  get size(): number {
    return this.#byUid.size;
  }

  /** In the order they were told. */
  all(): Iterable<Workload> {
    return this.#byUid.values();
  }

  byUid(uid: string): Workload | undefined {
    return this.#byUid.get(uid);
  }

  /** Never a host-network workload: many of them share the address of their node. */
  byAddress(network: string, ip: string): Workload | undefined {
    const claim = this.#byAddress.get(network)?.get(ip);
    return claim instanceof Claims ? claim.owner : claim;
  }

  byHostname(namespace: string, hostname: string): Workload | undefined {
    return this.#byHostname
      .get(hostname)
      ?.values()
      .find((workload) => workload.namespace === namespace);
  }

  /** The record of a captured pod: all but the cluster must agree (zt#777, zt#979), and of several that of its cluster counts. */
  local({ node, name, namespace, serviceAccount, clusterId }: LocalPod): Workload | undefined {
    if (this.#local?.node !== node) this.#local = { node, byName: this.#localByName(node) };
    let found: Workload | undefined;
    for (const workload of this.#local.byName.get(name) ?? []) {
      if (workload.namespace !== namespace || workload.serviceAccount !== serviceAccount) continue;
      if (workload.clusterId === clusterId) return workload;
      found ??= workload;
    }
    return found;
  }

  /** The UID must be free. */
  add(workload: Workload): void {
    this.#byUid.set(workload.uid, workload);
    if (workload.hostname !== '') addTo(this.#byHostname, workload.hostname, workload);
    const local = this.#local;
    if (local !== undefined && isOn(workload, local.node)) append(local.byName, workload.name, workload);
    if (workload.networkMode === 'HostNetwork') return;
    for (const ip of workload.ips) this.#claim(ip, workload);
  }

  /** `workload` is the very record that `byUid` gives. */
  delete(workload: Workload): void {
    this.#byUid.delete(workload.uid);
    if (workload.hostname !== '') takeFrom(this.#byHostname, workload.hostname, workload);
    const local = this.#local;
    if (local !== undefined && isOn(workload, local.node)) detach(local.byName, workload.name, workload);
    if (workload.networkMode === 'HostNetwork') return;
    for (const ip of workload.ips) this.#disclaim(ip, workload);
  }

  #claim(ip: string, workload: Workload): void {
    const addresses = this.#byAddress.get(workload.network) ?? new Map<string, Workload | Claims>();
    this.#byAddress.set(workload.network, addresses);
    const claim = addresses.get(ip);
    if (claim instanceof Claims) claim.add(workload);
    else addresses.set(ip, claim === undefined || claim === workload ? workload : new Claims([claim, workload]));
  }

  #disclaim(ip: string, workload: Workload): void {
    const addresses = this.#byAddress.get(workload.network);
    const claim = addresses?.get(ip);
    if (addresses === undefined) return;
    if (claim instanceof Claims) {
      const last = claim.delete(workload);
      if (last !== undefined) addresses.set(ip, last);
    } else if (claim === workload) {
      addresses.delete(ip);
      if (addresses.size === 0) this.#byAddress.delete(workload.network);
    }
  }

  #localByName(node: string): Map<string, Workload[]> {
    const byName = new Map<string, Workload[]>();
    for (const workload of this.#byUid.values()) {
      if (isOn(workload, node)) append(byName, workload.name, workload);
    }
    return byName;
  }
}

/** Whether `workload` may be a pod of an agent on `node`; empty: of one that does not know its node. */
export function isOn(workload: Workload, node: string): boolean {
  return node === '' || workload.node === node;
}

/** Two workloads or more that claim one address; whoever may write WorkloadEntries can make them very many. */
class Claims {
  readonly #all: Set<Workload>;
  /** Absent since somebody came or left, until asked for. */
  #owner: Workload | undefined;

  constructor(all: readonly Workload[]) {
    this.#all = new Set(all);
  }

  get owner(): Workload {
    this.#owner ??= [...this.#all].reduce(owner);
    return this.#owner;
  }

  add(workload: Workload): void {
    this.#all.add(workload);
    this.#owner = undefined;
  }

  /** Who is left, if that is one. */
  delete(workload: Workload): Workload | undefined {
    this.#all.delete(workload);
    this.#owner = undefined;
    if (this.#all.size > 1) return undefined;
    const [last] = this.#all;
    return last;
  }
}

/** Who owns an address that two claim. Equal rank: the later record, as in ztunnel. */
function owner(earlier: Workload, later: Workload): Workload {
  return addressRank(later) >= addressRank(earlier) ? later : earlier;
}

/** A pod before anything else, then one that speaks HBONE. */
function addressRank(workload: Workload): number {
  return (workload.uid.includes('//Pod/') ? 2 : 0) + (workload.protocol === 'HBONE' ? 1 : 0);
}
