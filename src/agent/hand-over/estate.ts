/** The pods that this process serves, each of which can be offered to another one, given away, and taken back. */
import type { StopMode } from '../../capture/capture-contract.ts';
import type { Departed } from '../../proxy/departure.ts';
import {
  descriptorsOf,
  type Inheritance,
  type InheritedConnection,
  type InheritedListener,
  NO_INHERITANCE,
  sumOfNeeds,
  type TunnelNeeds,
} from '../../proxy/inheritance.ts';
import { type ClaimedStream, claimedOf, type StreamClaim } from '../../proxy/settings.ts';
import { closeFd } from '../../sys/duplicate.ts';
import type { Netns } from '../../sys/sys.ts';
import type { DataPlane, MovableSet, ServedPod } from '../data-plane.ts';

/** The same for all processes of a node: a pod that came back in another sandbox is another one. */
export function estateKey({ uid }: ServedPod, { id }: Netns): string {
  return `${uid} ${id.device}:${id.inode}`;
}

export class Estate {
  readonly #pods = new Map<string, EstatePod>();

  /** Serves a pod, from what was inherited, until it is stopped. Rejects when its listeners cannot be bound. */
  async serve(
    pod: ServedPod,
    netns: Netns,
    dataPlane: Pick<DataPlane, 'start'>,
    inherited: Inheritance,
  ): Promise<EstatePod> {
    const key = estateKey(pod, netns);
    const served = await EstatePod.start((from) => dataPlane.start(pod, netns, from), inherited);
    this.#pods.set(key, served);
    void served.stopped.then(() => {
      if (this.#pods.get(key) === served) this.#pods.delete(key);
    });
    return served;
  }

  get(key: string): EstatePod | undefined {
    return this.#pods.get(key);
  }

  /** Of the pod of that UID as it is served now. */
  keyOf(uid: string): string | undefined {
    return [...this.#pods.keys()].findLast((key) => key.startsWith(`${uid} `));
  }
}

type Start = (inherited: Inheritance) => Promise<MovableSet>;

export class EstatePod {
  /** Resolves when it was stopped. */
  readonly stopped: Promise<void>;
  readonly #start: Start;
  /** Former ones carry what could not move. */
  readonly #sets: MovableSet[];
  readonly #stop = Promise.withResolvers<void>();
  #offer: Inheritance | undefined;
  /** Its listeners were offered, and not taken back since. */
  #isLeft = false;
  #isStopped = false;

  private constructor(start: Start, set: MovableSet) {
    this.#start = start;
    this.#sets = [set];
    this.stopped = this.#stop.promise;
  }

  static async start(start: Start, inherited: Inheritance): Promise<EstatePod> {
    return new EstatePod(start, await start(inherited));
  }

  /** What the heir is told before it takes connections. */
  async needs(): Promise<TunnelNeeds> {
    return sumOfNeeds(await Promise.all(this.#sets.map((set) => set.needs())));
  }

  /** Of connections that are to be adopted. */
  async warm(needs: TunnelNeeds): Promise<void> {
    if (!this.#isStopped) await this.#sets.at(-1)?.warm(needs);
  }

  /** Listeners, still this process's: `give` or `takeBack` follows. */
  async offer(): Promise<readonly InheritedListener[]> {
    this.#isLeft = true;
    const listeners = (await Promise.all(this.#sets.map((set) => set.leaveListeners()))).flat();
    this.#offer = { listeners, connections: [] };
    return listeners;
  }

  /** Once the listeners are given: some of the connections that can move, as for `offer`. */
  async offerMore(): Promise<Departed> {
    const parts = await Promise.all(this.#sets.map((set) => set.moveSome()));
    const connections = parts.flatMap((part) => part.connections);
    this.#offer = { listeners: [], connections };
    return { connections, isLast: parts.every(({ isLast }) => isLast) };
  }

  /** A suspended stream that a client looks for, in the same way: here, or with whoever `before` asks. Nothing may be on offer. */
  async offerClaimed(claim: StreamClaim, before: () => Promise<ClaimedStream>): Promise<ClaimedStream> {
    let found = claimedOf(await Promise.all(this.#sets.map((set) => set.surrender(claim))));
    if (typeof found === 'string' && found !== 'foreign') found = claimedOf([found, await before()]);
    this.#offer = { listeners: [], connections: typeof found === 'object' ? [found] : [] };
    return found;
  }

  /** The other process is gone, and this one serves no more: what is on offer is carried, or ends, here. */
  async keepOffer(): Promise<void> {
    const { connections } = this.#offer ?? NO_INHERITANCE;
    this.#offer = undefined;
    await this.#sets.at(-1)?.adopt(connections);
  }

  /** The offer is another process's now. */
  give(): void {
    this.#closeOffer();
  }

  /** Serves again: what is still on offer, or with new listeners. It may serve as ever, when it came after the heir asked for it. */
  async takeBack(): Promise<void> {
    if (!this.#isLeft) return;
    const inherited = this.#offer ?? NO_INHERITANCE;
    this.#offer = undefined;
    if (this.#isStopped) {
      for (const fd of descriptorsOf(inherited)) closeFd(fd);
      return;
    }
    const set = await this.#start(inherited);
    this.#sets.push(set);
    this.#isLeft = false;
    // The pod may have gone meanwhile.
    if (this.#isStopped) await set.stop('immediate');
  }

  /** Goes on with connections of the process before this one, and owns their descriptors. */
  async adopt(connections: readonly InheritedConnection[]): Promise<void> {
    const set = this.#isStopped ? undefined : this.#sets.at(-1);
    if (set !== undefined) await set.adopt(connections);
    else for (const fd of descriptorsOf({ listeners: [], connections })) closeFd(fd);
  }

  async stop(mode: StopMode): Promise<void> {
    this.#isStopped = true;
    try {
      await Promise.all(this.#sets.map((set) => set.stop(mode)));
    } finally {
      this.#closeOffer();
      this.#stop.resolve();
    }
  }

  #closeOffer(): void {
    for (const fd of descriptorsOf(this.#offer ?? NO_INHERITANCE)) closeFd(fd);
    this.#offer = undefined;
  }
}
