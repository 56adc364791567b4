/** The pods that a worker serves: in namespaces whose descriptors belong to the main thread. */
import type { ProxySet } from '../../capture/capture-contract.ts';
import type { Netns, Sys } from '../../sys/sys.ts';
import type { PodProxies } from '../pod-proxies.ts';
import type { PodStart, PodStop } from './protocol.ts';

interface Serving {
  readonly listeners: readonly number[];
  readonly set: ProxySet;
  readonly netns: Netns;
}

export class WorkerPods {
  readonly #proxies: PodProxies;
  readonly #listeners: ListenerRecord;
  readonly #pods = new Map<number, Serving>();

  constructor(proxies: PodProxies, listeners: ListenerRecord) {
    this.#proxies = proxies;
    this.#listeners = listeners;
  }

  /** Binds all listeners of a pod, or throws; their descriptors. Idempotent. */
  start({ id, pod, netns }: PodStart): readonly number[] {
    const known = this.#pods.get(id);
    if (known !== undefined) return known.listeners;
    const borrowed = borrowedNetns(netns);
    const { result: set, listeners } = this.#listeners.during(() => this.#proxies.start(pod, borrowed));
    this.#pods.set(id, { listeners, set, netns: borrowed });
    return listeners;
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

/** Notes which listeners are bound. */
export class ListenerRecord {
  #fds: number[] = [];

  /** `sys`, with a note of each listener. */
  watch(sys: Sys): Sys {
    return {
      ...sys,
      listenTcp: (netns, options) => {
        const bound = sys.listenTcp(netns, options);
        this.#fds.push(bound.fd);
        return bound;
      },
    };
  }

  /** What `bind` returns, and the listeners it bound. */
  during<Result>(bind: () => Result): { readonly result: Result; readonly listeners: readonly number[] } {
    this.#fds = [];
    const result = bind();
    return { result, listeners: this.#fds };
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
