/** The pods that a worker serves: in namespaces whose descriptors belong to the main thread. */
import type { ProxySet } from '../../capture/capture-contract.ts';
import type { Netns } from '../../sys/sys.ts';
import type { PodProxies } from '../pod-proxies.ts';
import type { PodStart, PodStop } from './protocol.ts';

interface Serving {
  readonly set: ProxySet;
  readonly netns: Netns;
}

export class WorkerPods {
  readonly #proxies: PodProxies;
  readonly #pods = new Map<number, Serving>();

  constructor(proxies: PodProxies) {
    this.#proxies = proxies;
  }

  /** Binds all listeners of a pod, or throws. Idempotent. */
  start({ id, pod, netns }: PodStart): void {
    if (this.#pods.has(id)) return;
    const borrowed = borrowedNetns(netns);
    this.#pods.set(id, { set: this.#proxies.start(pod, borrowed), netns: borrowed });
  }

  /** Does nothing for a pod that is not served here. */
  async stop({ id, mode }: PodStop): Promise<void> {
    const serving = this.#pods.get(id);
    if (serving === undefined) return;
    await serving.set.stop(mode);
    this.#pods.delete(id);
    serving.netns[Symbol.dispose]();
  }
}

/** Disposing ends the use here and closes nothing: the number may be another descriptor's soon. */
function borrowedNetns({ fd, path, id }: PodStart['netns']): Netns {
  let isOpen = true;
  return {
    get fd() {
      return isOpen ? fd : -1;
    },
    path,
    id,
    [Symbol.dispose]() {
      isOpen = false;
    },
  };
}
