/** Which pod has which namespace: one each, and never the agent's own or the node's. */
import { MeshError, toMeshError } from '../base/errors.ts';
import type { Netns, Sys } from '../sys/sys.ts';
import type { CapturedPod } from './pod-source.ts';

/** `/proc/1` is the node only where the agent may see it. */
const NODE_PATHS = ['/proc/self/ns/net', '/proc/1/ns/net'] as const;

/**
 * What may be captured. `pods`: neither the namespace of the agent nor that of the node. `own`: that of the agent too, unless
 * it is the machine's. `any`: nothing is redirected, so nobody can be cut off.
 */
export type NetnsScope = 'pods' | 'own' | 'any';

/** Namespaces of the agent and of the node: to capture one of these would cut them off. */
export class NodeNetns {
  readonly #sys: Sys;
  readonly #scope: NetnsScope;
  readonly #known: readonly Netns['id'][];

  constructor(sys: Sys, scope: NetnsScope = 'pods') {
    this.#sys = sys;
    this.#scope = scope;
    const paths = scope === 'pods' ? NODE_PATHS : [];
    this.#known = paths.flatMap((path) => {
      try {
        using netns = sys.openNetns(path);
        return [netns.id];
      } catch {
        return [];
      }
    });
  }

  has(netns: Netns): boolean {
    if (this.#known.some((id) => isSameNetns(id, netns.id))) return true;
    return this.#scope !== 'any' && this.#sys.isMachineNetns(netns);
  }

  /** Throws `CV-NETNS`. */
  refuse(netns: Netns): void {
    if (!this.has(netns)) return;
    const { path } = netns;
    throw new MeshError('CV-NETNS', 'this is the namespace of the agent or of the node, not of a pod', { path });
  }
}

export class NetnsClaims {
  readonly #owners = new Map<string, string>();
  readonly #node: NodeNetns;
  /** Pods that are wanted now, also those not started yet. */
  readonly #wanted: () => Iterable<CapturedPod>;

  constructor(node: NodeNetns, wanted: () => Iterable<CapturedPod>) {
    this.#wanted = wanted;
    this.#node = node;
  }

  /** Throws `CV-NETNS` when the namespace is another pod's, the agent's or the node's. */
  claim(netns: Netns, uid: string): void {
    this.#node.refuse(netns);
    const id = idText(netns.id);
    const owner = this.#owners.get(id);
    if (owner !== undefined && owner !== uid) {
      throw new MeshError('CV-NETNS', `this namespace is captured as pod ${owner} already`, {
        path: netns.path,
        owner,
      });
    }
    this.#owners.set(id, uid);
  }

  /** Nothing happens when `uid` does not have it. */
  release(netns: Netns, uid: string): void {
    const id = idText(netns.id);
    if (this.#owners.get(id) === uid) this.#owners.delete(id);
  }

  /** To take away the rules that are left in it. False: it is another's affair. */
  tryClaim(netns: Netns, pod: CapturedPod): boolean {
    const id = idText(netns.id);
    if (this.#node.has(netns) || this.#owners.has(id) || this.isWantedByAnother(netns, pod)) return false;
    this.#owners.set(id, pod.uid);
    return true;
  }

  /** The namespace lives on under another uid: taking its rules away would open a gap. */
  isWantedByAnother(netns: Netns, { uid, netnsPath }: CapturedPod): boolean {
    for (const pod of this.#wanted()) {
      if (pod.uid !== uid && (pod.netnsPath === netnsPath || pod.netnsPath === netns.path)) return true;
    }
    return false;
  }
}

export function isSameNetns(a: Netns['id'], b: Netns['id']): boolean {
  return a.device === b.device && a.inode === b.inode;
}

/**
 * `undefined`: no namespace is there any more. Throws for what says nothing about the pod, such as the want of descriptors.
 */
export function openUnlessGone(sys: Sys, path: string): Netns | undefined {
  try {
    return sys.openNetns(path);
  } catch (error) {
    if (isGone(toMeshError(error))) return undefined;
    throw error;
  }
}

function isGone({ code, fields }: MeshError): boolean {
  const errno = fields['errno'];
  return code === 'CV-NETNS' && (errno === undefined || errno === 'ENOENT' || errno === 'ENOTDIR' || errno === 'ESRCH');
}

/** Equal for the same namespace. */
export function idText({ device, inode }: Netns['id']): string {
  return `${device}:${inode}`;
}
