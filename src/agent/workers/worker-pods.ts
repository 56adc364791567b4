/** The pods that a worker serves: in namespaces whose descriptors belong to the main thread. */
import type { Departed } from '../../proxy/departure.ts';
import {
  type Inheritance,
  type InheritedListener,
  NO_NEEDS,
  socketsOf,
  type TunnelNeeds,
  withSockets,
} from '../../proxy/inheritance.ts';
import { servesConnections } from '../../proxy/pod-context.ts';
import { closeFd, duplicate } from '../../sys/duplicate.ts';
import { netnsHandle } from '../../sys/netns.ts';
import type { Netns } from '../../sys/sys.ts';
import type { LocalSet, PodProxies } from '../pod-proxies.ts';
import type { PodAdoption, PodInheritance, PodNeeds, PodStop } from './protocol.ts';

interface Serving {
  readonly set: LocalSet;
  readonly netns: Netns;
}

export class WorkerPods {
  readonly #proxies: PodProxies;
  readonly #pods = new Map<number, Serving>();

  constructor(proxies: PodProxies) {
    this.#proxies = proxies;
  }

  /** Binds all listeners of a pod, or throws; those of one at rest, too. Does nothing for one that has them. */
  start({ pod: { id, pod, netns }, inherited }: PodInheritance): void {
    const known = this.#pods.get(id);
    if (known !== undefined) {
      if (servesConnections(pod)) known.set.serveAgain(copyOf({ ...inherited, connections: [] }).listeners);
      return;
    }
    // The descriptor is the main thread's to close.
    const borrowed = netnsHandle(netns, () => {});
    this.#pods.set(id, { set: this.#proxies.start(pod, borrowed, copyOf(inherited)), netns: borrowed });
  }

  async needs(id: number): Promise<TunnelNeeds> {
    return (await this.#pods.get(id)?.set.needs()) ?? NO_NEEDS;
  }

  async warm({ id, needs }: PodNeeds): Promise<void> {
    await this.#pods.get(id)?.set.warm(needs);
  }

  async leaveListeners(id: number): Promise<readonly InheritedListener[]> {
    return (await this.#pods.get(id)?.set.leaveListeners()) ?? [];
  }

  rest(id: number): readonly InheritedListener[] {
    return this.#pods.get(id)?.set.rest() ?? [];
  }

  async moveSome(id: number): Promise<Departed> {
    return (await this.#pods.get(id)?.set.moveSome()) ?? { connections: [], isLast: true };
  }

  /** Connections of a pod that is not served here end with the descriptors of the main thread. */
  async adopt({ id, connections }: PodAdoption): Promise<void> {
    await this.#pods.get(id)?.set.adopt(copyOf({ listeners: [], connections }).connections);
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

/** With descriptors of its own; throws with none left. */
function copyOf({ listeners, connections }: Inheritance): Inheritance {
  const copies: number[] = [];
  const copy = (fd: number): number => {
    const made = duplicate(fd);
    copies.push(made);
    return made;
  };
  try {
    return {
      listeners: listeners.map((listener) => ({ ...listener, fd: copy(listener.fd) })),
      connections: connections.map((connection) => withSockets(connection, socketsOf(connection).map(copy))),
    };
  } catch (error) {
    for (const fd of copies) closeFd(fd);
    throw error;
  }
}
