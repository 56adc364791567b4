/** The workers of one lane: each serves every pod of the lane, and the kernel spreads connections over them. */
import { type Clock, deadline } from '../../base/clock.ts';
import type { StopMode } from '../../capture/capture-contract.ts';
import type { Lane } from '../../model/lane.ts';
import { type Departed, joined } from '../../proxy/departure.ts';
import {
  descriptorsOf,
  type Inheritance,
  type InheritedConnection,
  type InheritedListener,
  NO_INHERITANCE,
  NO_NEEDS,
  sumOfNeeds,
  type TunnelNeeds,
} from '../../proxy/inheritance.ts';
import { type ServedPart, servesConnections } from '../../proxy/pod-context.ts';
import { closeFd } from '../../sys/duplicate.ts';
import type { PodStart } from './protocol.ts';
import type { Worker } from './worker.ts';
import { noWorker, type WorkerSlot } from './worker-slot.ts';

/** Longest a new pod waits for a worker to serve it. */
const WORKER_WAIT_MS = 5_000;

export interface LaneParts {
  readonly lane: Lane;
  /** What it serves of a pod that another lane has; absent: nothing new, and it need not know it. */
  readonly atRest: ServedPart | undefined;
  readonly clock: Clock;
  /** One place for each worker, for the pods of this lane. */
  readonly slots: (lane: LaneWorkers) => readonly WorkerSlot[];
}

export class LaneWorkers {
  readonly lane: Lane;
  readonly slots: readonly WorkerSlot[];
  readonly #atRest: ServedPart | undefined;
  readonly #clock: Clock;
  readonly #pods = new Map<number, PodStart>();
  readonly #waiting = new Set<() => void>();

  constructor({ lane, atRest, clock, slots }: LaneParts) {
    this.lane = lane;
    this.#atRest = atRest;
    this.#clock = clock;
    this.slots = slots(this);
  }

  /** What a worker that begins has to serve. */
  get pods(): Iterable<PodStart> {
    return this.#pods.values();
  }

  /** No new connections come here, and none is left. */
  get isIdle(): boolean {
    const isServing = this.#pods.values().some(({ pod }) => servesConnections(pod));
    return !isServing && this.slots.every((slot) => slot.worker !== undefined && slot.totals().live === 0);
  }

  get running(): readonly Worker[] {
    return this.slots.flatMap(({ worker }) => worker ?? []);
  }

  /** Resolves when every worker runs; rejects when one cannot. */
  async start(): Promise<void> {
    await Promise.all(this.slots.map((slot) => slot.start()));
  }

  /** Once no pod is served any more. */
  async stop(): Promise<void> {
    await Promise.all(this.slots.map((slot) => slot.stop()));
  }

  /** A worker has come or gone. */
  changed(): void {
    for (const wake of [...this.#waiting]) wake();
  }

  /**
   * From now on new connections of the pod come here; what is inherited stays the caller's, as workers make copies. A worker
   * that comes later starts the pod by itself, without a part of it.
   */
  async serve(served: PodStart, inherited: Inheritance): Promise<void> {
    const pod = serving(served, this.lane === 'common' ? 'all' : 'connections');
    this.#pods.set(pod.id, pod);
    const deadlineMs = this.#clock.monotonicMs() + WORKER_WAIT_MS;
    for (let rest = inherited; ; ) {
      const serving = this.slots.filter(({ worker }) => worker !== undefined);
      const parts = serving.map((slot, at) => slot.startPod(pod, partOf(rest, at, serving.length)));
      const done = await Promise.all(parts);
      if (done.includes(true)) return;
      // What a lost worker had taken is lost; nobody else had it.
      if (serving.length > 0) rest = NO_INHERITANCE;
      const leftMs = deadlineMs - this.#clock.monotonicMs();
      if (leftMs <= 0) throw noWorker();
      await this.#change(leftMs);
    }
  }

  /** Of a pod that another lane has: what it serves at rest. */
  accompany(start: PodStart): void {
    if (this.#atRest === undefined) return;
    const pod = serving(start, this.#atRest);
    this.#pods.set(pod.id, pod);
    for (const slot of this.slots) slot.servePod(pod);
  }

  /** New connections of the pod go to another process; those that are here, stay. The descriptors are the caller's. */
  async leave({ id }: PodStart): Promise<readonly InheritedListener[]> {
    this.#pods.delete(id);
    return await this.#listenersOf((link) => link.call('leaveListeners', id));
  }

  /** The same to the other lane. */
  async rest(pod: PodStart): Promise<readonly InheritedListener[]> {
    if (this.#atRest === undefined) this.#pods.delete(pod.id);
    else this.#pods.set(pod.id, serving(pod, this.#atRest));
    return await this.#listenersOf((link) => link.call('rest', pod.id));
  }

  async #listenersOf(
    ask: (link: Worker['link']) => Promise<readonly InheritedListener[]>,
  ): Promise<readonly InheritedListener[]> {
    const none: readonly InheritedListener[] = [];
    return (await Promise.all(this.slots.map((slot) => slot.ask(ask, none)))).flat();
  }

  async needs({ id }: PodStart): Promise<TunnelNeeds> {
    return sumOfNeeds(
      await Promise.all(this.slots.map((slot) => slot.ask((link) => link.call('needs', id), NO_NEEDS))),
    );
  }

  /** Connections that are adopted are dealt out over all. */
  async warm({ id }: PodStart, { out, in: incoming }: TunnelNeeds): Promise<void> {
    const { length } = this.slots;
    const part = out.map(({ key, streams }) => ({ key, streams: Math.ceil(streams / length) }));
    const needs = { out: part, in: Math.floor(incoming / length) };
    await Promise.all(this.slots.map((slot) => slot.ask((link) => link.call('warm', { id, needs }), undefined)));
  }

  async moveSome({ id }: PodStart): Promise<Departed> {
    const none: Departed = { connections: [], isLast: true };
    return joined(await Promise.all(this.slots.map((slot) => slot.ask((link) => link.call('moveSome', id), none))));
  }

  /** Owns the descriptors. What a worker does not take ends here. */
  async adopt({ id }: PodStart, connections: readonly InheritedConnection[]): Promise<void> {
    const inherited = { listeners: [], connections };
    try {
      const serving = this.slots.filter(({ worker }) => worker !== undefined);
      const parts = serving.map((slot, at) => {
        const adoption = { id, connections: partOf(inherited, at, serving.length).connections };
        return slot.ask((link) => link.call('adopt', adoption), undefined);
      });
      await Promise.all(parts);
    } finally {
      for (const descriptor of descriptorsOf(inherited)) closeFd(descriptor);
    }
  }

  /** Whether its new connections come here or what it had before is still here. */
  async stopPod({ id }: PodStart, mode: StopMode): Promise<void> {
    this.#pods.delete(id);
    await Promise.all(this.slots.map((slot) => slot.stopPod({ id, mode })));
  }

  /** Resolves when a worker has come or gone, or the time is over. */
  async #change(withinMs: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    using _deadline = deadline(this.#clock, withinMs, resolve);
    this.#waiting.add(resolve);
    await promise;
    this.#waiting.delete(resolve);
  }
}

/** What each worker of `lanes` that runs answers, or `nothing` for one that does not in time. */
export function askAll<Answer>(
  lanes: readonly LaneWorkers[],
  ask: (link: Worker['link'], worker: Worker) => Promise<Answer>,
  nothing: Answer,
): Promise<readonly Answer[]> {
  const workers = lanes.flatMap(({ running }) => running);
  return Promise.all(workers.map((worker) => worker.ask((link) => ask(link, worker), nothing)));
}

function serving(start: PodStart, serves: ServedPart): PodStart {
  return { ...start, pod: { ...start.pod, serves } };
}

/** The share of one of `count` workers: of each port's listeners, and of the connections. */
function partOf({ listeners, connections }: Inheritance, at: number, count: number): Inheritance {
  const ofPort = Map.groupBy(listeners, ({ port }) => port);
  return {
    listeners: [...ofPort.values()].flatMap((same) => same.filter((_, index) => index % count === at)),
    connections: connections.filter((_, index) => index % count === at),
  };
}
