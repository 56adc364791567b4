/**
 * The second lane: workers of a lower priority for the new connections of pods that keep others waiting, or that peers attack.
 * They begin when the first such pod is found, and end when there has been none for a while. What a greedy pod has open moves
 * along where it can; what is open when an attack begins has no part in it, and stays.
 */
import type { Clock } from '../../base/clock.ts';
import { toMeshError } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import type { Lane, LaneLimits } from '../../model/lane.ts';
import { closeFd } from '../../sys/duplicate.ts';
import type { BusyPod } from './busy-pods.ts';
import { LaneWatch } from './lane-watch.ts';
import type { LaneWorkers } from './lane-workers.ts';
import type { PodStart } from './protocol.ts';
import type { Worker } from './worker.ts';

/** Threads that nobody uses for so long end. */
const IDLE_MS = 60_000;
/** What a pod has left in the other lane is looked at again each so many looks. */
const LOOKS_PER_RECKONING = 10;
/** From threads that could not begin to the next try. */
const RETRY_MS = 60_000;

/** A pod of the pool. */
export interface PooledPod {
  readonly start: PodStart;
  /** Where its new connections go. */
  lane: Lane;
  /** To another process, or away. */
  isLeaving: boolean;
  /** Something about its lane is under way; never rejects. */
  change: Promise<void> | undefined;
  /** Connections that could not move: they are in the other lane. */
  hasLeft: boolean;
}

export interface GreedyLaneDeps {
  readonly limits: LaneLimits;
  readonly clock: Clock;
  readonly log: Logger;
  readonly common: LaneWorkers;
  /** Those that are served. */
  readonly pods: () => Iterable<PooledPod>;
  /** Pods have connections in the lane of others: by short cuts. */
  readonly areMixed: boolean;
  /** Not started yet. */
  readonly make: () => LaneWorkers;
  /** Counts what the pods have open in `lane`, where they are not or will not be, against their budgets in the other; who has some. */
  readonly reckon: (pods: readonly PooledPod[], lane: Lane) => Promise<ReadonlySet<PooledPod>>;
  /** Nobody uses them any more, and they are about to end: keeps what they have counted. */
  readonly retire: (workers: LaneWorkers) => Promise<void>;
}

export class GreedyLane {
  readonly #deps: GreedyLaneDeps;
  readonly #watch: LaneWatch;
  #workers: LaneWorkers | undefined;
  #starting: Promise<LaneWorkers> | undefined;
  #ending: Promise<void> | undefined;
  #looks = 0;
  #changes = 0;
  #idleSinceMs: number | undefined;
  #closedUntilMs = Number.NEGATIVE_INFINITY;

  constructor(deps: GreedyLaneDeps) {
    this.#deps = deps;
    this.#watch = new LaneWatch(deps.limits);
  }

  /** While there are some. */
  get workers(): LaneWorkers | undefined {
    return this.#workers;
  }

  /** Threads on their way out use no pod's netns after it. */
  get ending(): Promise<void> | undefined {
    return this.#ending;
  }

  /** All that `worker`, of either lane, is busy with now. */
  tell(worker: Worker, busy: readonly BusyPod[]): void {
    this.#watch.tell(worker, busy);
  }

  /** Peers attack the pod: does not wait for the next look. */
  attacked(podUid: string): void {
    const nowMs = this.#deps.clock.monotonicMs();
    for (const pod of this.#deps.pods()) {
      if (pod.start.pod.uid !== podUid) continue;
      this.#watch.attacked(pod.start, nowMs);
      this.#place(pod, nowMs, 'attack');
    }
  }

  /** It has ended. */
  forget(worker: Worker): void {
    this.#watch.forget(worker);
  }

  /** To be called once a second. */
  look(): void {
    const pods = [...this.#deps.pods()];
    const nowMs = this.#deps.clock.monotonicMs();
    this.#watch.look(
      pods.map(({ start }) => start),
      nowMs,
    );
    for (const pod of pods) this.#place(pod, nowMs, 'use');
    if (++this.#looks % LOOKS_PER_RECKONING === 0) this.#reckonAll(pods);
    this.#endIdle(nowMs);
  }

  /** Once no pod is served any more. */
  async stop(): Promise<void> {
    await this.#starting?.catch(() => undefined);
    await this.#ending;
    await this.#workers?.stop();
  }

  /** In the lane where it belongs. */
  #place(pod: PooledPod, nowMs: number, cause: Cause): void {
    if (pod.change !== undefined) return;
    const lane = this.#watch.laneOf(pod.start.id);
    if (lane !== pod.lane && nowMs >= this.#closedUntilMs) this.#begin(pod, this.#change(pod, lane, cause));
  }

  #begin(pod: PooledPod, work: Promise<void>): void {
    this.#changes += 1;
    pod.change = work.finally(() => {
      pod.change = undefined;
      this.#changes -= 1;
    });
  }

  #reckonAll(pods: readonly PooledPod[]): void {
    const areMixed = this.#deps.areMixed && this.#workers !== undefined;
    for (const lane of ['common', 'greedy'] as const) {
      const others = pods.filter((pod) => pod.change === undefined && pod.lane !== lane && (areMixed || pod.hasLeft));
      if (others.length === 0) continue;
      const work = this.#reckon(others, lane);
      for (const pod of others) this.#begin(pod, work);
    }
  }

  async #reckon(pods: readonly PooledPod[], lane: Lane): Promise<void> {
    const left = await this.#deps.reckon(pods, lane);
    for (const pod of pods) pod.hasLeft = left.has(pod);
  }

  async #change(pod: PooledPod, lane: Lane, cause: Cause): Promise<void> {
    const { log, common, reckon } = this.#deps;
    const { start } = pod;
    const { share, heldPerSecond } = this.#watch.useOf(start.pod.uid);
    try {
      const greedy = await this.#open();
      const [from, to] = lane === 'greedy' ? [common, greedy] : [greedy, common];
      const former = pod.lane;
      await reckon([pod], former);
      if (pod.isLeaving) return;
      await give(start, from, to);
      pod.lane = lane;
      const fields = { uid: start.pod.uid, cores: rounded(share), heldPerSecond: rounded(heldPerSecond) };
      if (cause === 'attack') {
        log.warn?.(ATTACKED, fields);
      } else {
        log.info?.(SAID[lane], fields);
        await follow(pod, from, to);
      }
      await this.#reckon([pod], former);
    } catch (error) {
      const { code, message } = toMeshError(error, 'CV-WORKER');
      log.warn?.('workload stays in its lane', { uid: start.pod.uid, lane: pod.lane, reason: code, error: message });
      this.#closedUntilMs = this.#deps.clock.monotonicMs() + RETRY_MS;
    }
  }

  async #open(): Promise<LaneWorkers> {
    if (this.#workers !== undefined) return this.#workers;
    this.#starting ??= this.#start().finally(() => (this.#starting = undefined));
    return await this.#starting;
  }

  async #start(): Promise<LaneWorkers> {
    await this.#ending;
    const workers = this.#deps.make();
    try {
      await workers.start();
    } catch (error) {
      await workers.stop();
      throw error;
    }
    for (const { start } of this.#deps.pods()) workers.accompany(start);
    this.#workers = workers;
    return workers;
  }

  #endIdle(nowMs: number): void {
    const workers = this.#workers;
    if (workers === undefined || this.#changes > 0 || !workers.isIdle) {
      this.#idleSinceMs = undefined;
      return;
    }
    this.#idleSinceMs ??= nowMs;
    if (nowMs - this.#idleSinceMs < IDLE_MS) return;
    this.#idleSinceMs = undefined;
    this.#workers = undefined;
    this.#ending = this.#end(workers).finally(() => (this.#ending = undefined));
  }

  async #end(workers: LaneWorkers): Promise<void> {
    await this.#deps.retire(workers);
    for (const worker of workers.running) this.#watch.forget(worker);
    await workers.stop();
  }
}

/** Why a pod changes lanes. */
type Cause = 'use' | 'attack';

const ATTACKED = 'peers attack the workload, threads of a lower priority serve what is new';
const SAID = {
  greedy: 'workload keeps others waiting, threads of a lower priority serve it',
  common: 'workload is modest again, it shares threads with the others',
} as const satisfies Record<Lane, string>;

/** The listening sockets move, with the clients that wait in them. Where nobody takes them they stay. */
async function give(pod: PodStart, from: LaneWorkers, to: LaneWorkers): Promise<void> {
  const listeners = await from.rest(pod);
  try {
    await to.serve(pod, { listeners, connections: [] });
  } catch (error) {
    for (const { fd } of await to.rest(pod)) closeFd(fd);
    await from.serve(pod, { listeners, connections: [] });
    throw error;
  } finally {
    for (const { fd } of listeners) closeFd(fd);
  }
}

/** What it has open, a few connections at a time. Those that cannot move stay to their end. */
async function follow(pod: PooledPod, from: LaneWorkers, to: LaneWorkers): Promise<void> {
  // A stream that moves should not wait for a handshake.
  await to.warm(pod.start, await from.needs(pod.start));
  for (let isLast = false; !isLast && !pod.isLeaving; ) {
    const part = await from.moveSome(pod.start);
    await to.adopt(pod.start, part.connections);
    ({ isLast } = part);
  }
}

function rounded(value: number): number {
  return Number(value.toPrecision(2));
}
