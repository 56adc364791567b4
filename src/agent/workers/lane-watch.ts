/** Which lane each pod belongs to, by what all workers say about it. */
import {
  attackedLane,
  type Lane,
  type LaneLimits,
  type LaneState,
  type LoopUse,
  NO_USE,
  newLaneState,
  nextLane,
} from '../../model/lane.ts';
import type { BusyPod } from './busy-pods.ts';
import type { PodStart } from './protocol.ts';

export class LaneWatch {
  readonly #limits: LaneLimits;
  /** Of those that are served. */
  #states = new Map<number, LaneState>();
  /** By worker: what it said last. */
  readonly #told = new Map<object, readonly BusyPod[]>();

  constructor(limits: LaneLimits) {
    this.#limits = limits;
  }

  /** All that `worker` is busy with now. */
  tell(worker: object, busy: readonly BusyPod[]): void {
    if (busy.length === 0) this.#told.delete(worker);
    else this.#told.set(worker, busy);
  }

  /** The worker has ended. */
  forget(worker: object): void {
    this.#told.delete(worker);
  }

  laneOf(id: number): Lane {
    return this.#states.get(id)?.lane ?? 'common';
  }

  /** Peers attack a pod that is served. */
  attacked({ id, pod }: PodStart, nowMs: number): void {
    if (pod.isAgent === true) return;
    this.#states.set(id, attackedLane(this.#states.get(id) ?? newLaneState(nowMs), nowMs, this.#limits));
  }

  /** Over all workers. */
  useOf(uid: string): LoopUse {
    const uses = [...this.#told.values()].flatMap((busy) => busy.filter((pod) => pod.uid === uid));
    const total = (field: keyof LoopUse): number => uses.reduce((sum, use) => sum + use[field], 0);
    return uses.length === 0 ? NO_USE : { share: total('share'), heldPerSecond: total('heldPerSecond') };
  }

  /** To be called once a second, with the pods that are served. */
  look(pods: readonly PodStart[], nowMs: number): void {
    const former = this.#states;
    const next = ({ id, pod }: PodStart): [number, LaneState] => {
      const state = former.get(id) ?? newLaneState(nowMs);
      return [id, pod.isAgent === true ? state : nextLane(state, this.useOf(pod.uid), nowMs, this.#limits)];
    };
    this.#states = new Map(pods.map(next));
  }
}
