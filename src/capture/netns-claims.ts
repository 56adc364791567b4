/** Which pod has which namespace: one each, and never the agent's own or the node's. */
import { MeshError } from '../base/errors.ts';
import type { Netns, Sys } from '../sys/sys.ts';
import type { CapturedPod } from './pod-source.ts';

/** Redirecting one of these would cut off the agent or the node. `/proc/1` is the node only where the agent may see it. */
const FORBIDDEN_PATHS = ['/proc/self/ns/net', '/proc/1/ns/net'] as const;

export class NetnsClaims {
  readonly #owners = new Map<string, string>();
  readonly #forbidden: ReadonlySet<string>;
  /** Pods that are wanted now, also those not started yet. */
  readonly #wanted: () => Iterable<CapturedPod>;

  constructor(sys: Sys, wanted: () => Iterable<CapturedPod>) {
    this.#wanted = wanted;
    this.#forbidden = new Set(FORBIDDEN_PATHS.flatMap((path) => idOf(sys, path)));
  }

  /** Throws `CV-NETNS` when the namespace is another pod's, the agent's or the node's. */
  claim(netns: Netns, uid: string): void {
    const id = idText(netns);
    if (this.#forbidden.has(id)) {
      throw new MeshError('CV-NETNS', 'this is the namespace of the agent or of the node, not of a pod', {
        path: netns.path,
      });
    }
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
    const id = idText(netns);
    if (this.#owners.get(id) === uid) this.#owners.delete(id);
  }

  isFree(netns: Netns): boolean {
    const id = idText(netns);
    return !this.#forbidden.has(id) && !this.#owners.has(id);
  }

  /** The namespace lives on under another uid: taking its rules away would open a gap. */
  isWantedByAnother(netns: Netns, { uid, netnsPath }: CapturedPod): boolean {
    for (const pod of this.#wanted()) {
      if (pod.uid !== uid && (pod.netnsPath === netnsPath || pod.netnsPath === netns.path)) return true;
    }
    return false;
  }
}

function idText({ id }: Netns): string {
  return `${id.device}:${id.inode}`;
}

function idOf(sys: Sys, path: string): string[] {
  try {
    using netns = sys.openNetns(path);
    return [idText(netns)];
  } catch {
    return [];
  }
}
