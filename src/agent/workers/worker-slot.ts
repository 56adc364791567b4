/** The place of one worker: a new one takes it as soon as the former has ended, later and later when that goes on and on. */
import { backoffMs } from '../../base/backoff.ts';
import type { Clock } from '../../base/clock.ts';
import { MeshError, toMeshError } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import type { Random } from '../../base/random.ts';
import type { ReasonCode } from '../../base/reasons.ts';
import { type Inheritance, NO_INHERITANCE } from '../../proxy/inheritance.ts';
import type { PodStart, PodStop } from './protocol.ts';
import type { Worker, WorkerEnd } from './worker.ts';

/** A worker that lived so long was sound. */
const STABLE_MS = 30_000;
const RESTART = { firstMs: 250, maxMs: 30_000, jitter: 0.2 } as const;
/** Short lives in a row that make a crash loop. */
const LOOP_LENGTH = 3;
/** Pause before a pod whose listeners could not be bound is tried again. */
const POD_RETRY_MS = 1_000;

export interface SlotDeps {
  /** Of its workers. */
  readonly name: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly makeWorker: () => Worker;
  /** The pods that its worker serves, now. */
  readonly pods: () => Iterable<PodStart>;
  readonly onEnd: (end: WorkerEnd, worker: Worker) => void;
  /** It runs, or does not any more; or is sound again. */
  readonly onChange: () => void;
}

/** Of all workers that had the place. */
export interface SlotTotals {
  readonly live: number;
  readonly opened: number;
  readonly refused: ReadonlyMap<ReasonCode, number>;
}

export const NO_TOTALS: SlotTotals = { live: 0, opened: 0, refused: new Map() };

export function sumOfTotals(all: readonly SlotTotals[]): SlotTotals {
  const refused = new Map<ReasonCode, number>();
  for (const totals of all) {
    for (const [code, count] of totals.refused) refused.set(code, (refused.get(code) ?? 0) + count);
  }
  const sum = (of: 'live' | 'opened'): number => all.reduce((total, totals) => total + totals[of], 0);
  return { live: sum('live'), opened: sum('opened'), refused };
}

export class WorkerSlot {
  readonly #deps: SlotDeps;
  #worker: Worker | undefined;
  /** Threads of workers that ended. */
  readonly #leaving = new Set<Promise<void>>();
  #isRunning = false;
  #shortLives = 0;
  #restarts = 0;
  #isStopping = false;
  #past = NO_TOTALS;

  constructor(deps: SlotDeps) {
    this.#deps = deps;
  }

  /** The worker, while it can be given work. */
  get worker(): Worker | undefined {
    return this.#isRunning ? this.#worker : undefined;
  }

  get name(): string {
    return this.#deps.name;
  }

  get restarts(): number {
    return this.#restarts;
  }

  get isLooping(): boolean {
    return this.#shortLives >= LOOP_LENGTH;
  }

  totals(): SlotTotals {
    return sumOfTotals([this.#past, this.#worker?.mirror.totals() ?? NO_TOTALS]);
  }

  /** The first start: rejects when the worker cannot begin. */
  async start(): Promise<void> {
    await this.#launch();
  }

  /** Binds the listeners of a pod, if there is a worker; false when there is none, or it ended meanwhile. */
  async startPod(pod: PodStart, inherited: Inheritance = NO_INHERITANCE): Promise<boolean> {
    const { worker } = this;
    if (worker === undefined) return false;
    try {
      await worker.startPod({ pod, inherited });
      return true;
    } catch (error) {
      if (worker.isOver) return false;
      throw error;
    }
  }

  /** The same for one that has nothing to be waited for; a worker that comes later does it by itself. */
  servePod(pod: PodStart): void {
    if (this.worker !== undefined) void this.#servePod(this.worker, pod);
  }

  /** What `ask` answers, or `nothing` when there is no worker, or it ends meanwhile. */
  async ask<Answer>(ask: (link: Worker['link']) => Promise<Answer>, nothing: Answer): Promise<Answer> {
    const worker = this.#worker;
    if (worker === undefined) return nothing;
    try {
      return await ask(worker.link);
    } catch (error) {
      if (!worker.isOver) throw error;
      return nothing;
    }
  }

  /** Resolves when no thread of this slot uses the netns of the pod any more. */
  async stopPod(stop: PodStop): Promise<void> {
    await Promise.all([this.#worker?.stopPod(stop), ...this.#leaving]);
  }

  /** Ends a worker whose event loop stands still; see `HeartbeatWatch.isHung`. */
  checkBeat(periodMs: number, hangMs: number): void {
    if (this.worker?.isHung(periodMs, hangMs) === true) this.worker.kill('hung');
  }

  async stop(): Promise<void> {
    this.#isStopping = true;
    this.#isRunning = false;
    await Promise.all([this.#worker?.finish(), ...this.#leaving]);
  }

  async #launch(): Promise<void> {
    const { clock, makeWorker, onChange } = this.#deps;
    const worker = makeWorker();
    this.#worker = worker;
    await worker.ready();
    if (this.#isStopping) return;
    this.#isRunning = true;
    for (const pod of this.#deps.pods()) this.servePod(pod);
    onChange();
    const stable = clock.after(STABLE_MS, () => {
      this.#shortLives = 0;
      onChange();
    });
    void worker.ended.then((end) => {
      stable[Symbol.dispose]();
      this.#ended(worker, end);
    });
  }

  #ended(worker: Worker, end: WorkerEnd): void {
    this.#isRunning = false;
    this.#restarts += 1;
    this.#past = { ...sumOfTotals([this.#past, worker.mirror.totals()]), live: 0 };
    this.#worker = undefined;
    const leaving = worker.gone.then(() => void this.#leaving.delete(leaving));
    this.#leaving.add(leaving);
    this.#deps.onEnd(end, worker);
    this.#again();
  }

  #again(): void {
    const { clock, random, onChange } = this.#deps;
    const delayMs = this.#shortLives === 0 ? 0 : backoffMs(RESTART, this.#shortLives - 1, random);
    this.#shortLives += 1;
    onChange();
    clock.after(delayMs, () => void this.#relaunch());
  }

  async #relaunch(): Promise<void> {
    if (this.#isStopping) return;
    try {
      await this.#launch();
    } catch (error) {
      const { code, message } = toMeshError(error, 'CV-WORKER');
      this.#deps.log.error?.('data-plane worker cannot start, trying again', { reason: code, error: message });
      this.#again();
    }
  }

  /** In a worker that took the place of another: connections of the pod are refused until it works. */
  async #servePod(worker: Worker, pod: PodStart): Promise<void> {
    try {
      await worker.startPod({ pod, inherited: NO_INHERITANCE });
    } catch (error) {
      if (worker.isOver) return;
      const { code, message } = toMeshError(error);
      this.#deps.log.warn?.('pod has no listeners in a worker, trying again', {
        uid: pod.pod.uid,
        reason: code,
        error: message,
      });
      this.#deps.clock.after(POD_RETRY_MS, () => {
        const isWanted = [...this.#deps.pods()].includes(pod);
        if (isWanted && !worker.isOver) void this.#servePod(worker, pod);
      });
    }
  }
}

/** What a caller is told when no worker can serve. */
export function noWorker(): MeshError {
  return new MeshError('CV-WORKER', 'no data-plane worker is running');
}
