/** Workloads by UID, by network and address, by host name, and by what the capture side knows of a local pod. */
import { append, detach } from '../base/multimap.ts';
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
  /** network → address → who claims it. Nearly always one, which then stands there without a list. */
  readonly #byAddress = new Map<string, Map<string, Workload | readonly Workload[]>>();
  /** hostname → workloads that have it. Only records with a host name are here. */
  readonly #byHostname = new Map<string, Workload[]>();
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
    return isList(claim) ? claim.reduce(owner) : claim;
  }

  byHostname(namespace: string, hostname: string): Workload | undefined {
    return this.#byHostname.get(hostname)?.find((workload) => workload.namespace === namespace);
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
    if (workload.hostname !== '') append(this.#byHostname, workload.hostname, workload);
    const local = this.#local;
    if (local !== undefined && isOn(workload, local.node)) append(local.byName, workload.name, workload);
    if (workload.networkMode === 'HostNetwork') return;
    for (const ip of workload.ips) this.#claim(ip, workload);
  }

  /** `workload` is the very record that `byUid` gives. */
  delete(workload: Workload): void {
    this.#byUid.delete(workload.uid);
    if (workload.hostname !== '') detach(this.#byHostname, workload.hostname, workload);
    const local = this.#local;
    if (local !== undefined && isOn(workload, local.node)) detach(local.byName, workload.name, workload);
    if (workload.networkMode === 'HostNetwork') return;
    for (const ip of workload.ips) this.#disclaim(ip, workload);
  }

  #claim(ip: string, workload: Workload): void {
    const addresses = this.#byAddress.get(workload.network) ?? new Map<string, Workload | readonly Workload[]>();
    this.#byAddress.set(workload.network, addresses);
    const claim = addresses.get(ip);
    addresses.set(ip, claim === undefined ? workload : [...asList(claim), workload]);
  }

  #disclaim(ip: string, workload: Workload): void {
    const addresses = this.#byAddress.get(workload.network);
    const claim = addresses?.get(ip);
    if (addresses === undefined || claim === undefined) return;
    const [first, ...others] = asList(claim).filter((other) => other !== workload);
    if (first !== undefined) addresses.set(ip, others.length === 0 ? first : [first, ...others]);
    else if (addresses.size > 1) addresses.delete(ip);
    else this.#byAddress.delete(workload.network);
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

function isList(claim: Workload | readonly Workload[] | undefined): claim is readonly Workload[] {
  return Array.isArray(claim);
}

function asList(claim: Workload | readonly Workload[]): readonly Workload[] {
  return isList(claim) ? claim : [claim];
}

/** Who owns an address that two claim. Equal rank: the later record, as in ztunnel. */
function owner(earlier: Workload, later: Workload): Workload {
  return addressRank(later) >= addressRank(earlier) ? later : earlier;
}

/** A pod before anything else, then one that speaks HBONE. */
function addressRank(workload: Workload): number {
  return (workload.uid.includes('//Pod/') ? 2 : 0) + (workload.protocol === 'HBONE' ? 1 : 0);
}
