/** The data plane of an agent with workers: every worker serves every pod, and the kernel spreads connections over them. */
import { BoundedMap } from '../../base/bounded-map.ts';
import type { Clock } from '../../base/clock.ts';
import type { Logger } from '../../base/log.ts';
import type { Random } from '../../base/random.ts';
import type { ReasonCode } from '../../base/reasons.ts';
import type { StopMode } from '../../capture/capture-contract.ts';
import { budgetPart } from '../../model/budget.ts';
import type { Departed } from '../../proxy/departure.ts';
import {
  descriptorsOf,
  type Inheritance,
  type InheritedConnection,
  type InheritedListener,
  NO_INHERITANCE,
  socketsOf,
} from '../../proxy/inheritance.ts';
import type { ClaimedStream, StreamClaim } from '../../proxy/settings.ts';
import { closeFd } from '../../sys/duplicate.ts';
import { collectGarbage } from '../../sys/garbage.ts';
import type { Netns } from '../../sys/sys.ts';
import type { TrafficTotals } from '../../telemetry/connection-records.ts';
import type { ConnectionView } from '../../telemetry/connection-view.ts';
import type { Holdings } from '../../telemetry/thread-series.ts';
import type { WorkloadUse } from '../../telemetry/workload-use.ts';
import type { ConnectionsView, WorkerView } from '../admin-views.ts';
import type { BudgetTable } from '../budgets.ts';
import type { DataPlane, MovableSet, ServedPod } from '../data-plane.ts';
import type { Inspect } from '../thread-inspector.ts';
import { UsageTable } from '../usage-table.ts';
import type { PodStart } from './protocol.ts';
import { Worker, type WorkerDeps, type WorkerEnd, type WorkerOptions } from './worker.ts';
import { noWorker, WorkerSlot } from './worker-slot.ts';

/** How often workers are looked at. */
const CHECK_MS = 1_000;
/** Longest a new pod waits for a worker to serve it. */
const WORKER_WAIT_MS = 5_000;
/** Connections that ended with their worker, remembered for `culvert explain`. */
const MAX_LOST = 1_024;

export interface WorkerPoolOptions {
  readonly count: number;
  readonly worker: Omit<WorkerOptions, 'name' | 'start'> & {
    readonly start: Omit<WorkerOptions['start'], 'logFilter' | 'budgets'>;
  };
  /** A worker whose event loop stands still for so long is replaced. */
  readonly hangMs: number;
}

export interface WorkerPoolDeps extends Omit<WorkerDeps, 'claim'> {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  /** The log filter in force. */
  readonly logFilter: () => string;
  readonly onEnd: (end: WorkerEnd) => void;
  /** `false` while workers end again and again. */
  readonly onHealth: (isHealthy: boolean) => void;
}

export class WorkerPool implements DataPlane, AsyncDisposable {
  readonly #options: WorkerPoolOptions;
  readonly #deps: WorkerPoolDeps;
  readonly #slots: readonly WorkerSlot[];
  readonly #pods = new Map<number, PodStart>();
  readonly #lost = new BoundedMap<string, ConnectionView>(MAX_LOST);
  readonly #waiting = new Set<() => void>();
  readonly #usage = new UsageTable();
  /** Of one worker; absent until somebody says what it is. */
  #budgets: BudgetTable | undefined;
  #lastPod = 0;
  #checks: Disposable | undefined;

  private constructor(options: WorkerPoolOptions, deps: WorkerPoolDeps) {
    this.#options = options;
    this.#deps = deps;
    const names = Array.from({ length: options.count }, (_, at) => `worker-${at + 1}`);
    this.#slots = names.map((name) => this.#slot(name));
  }

  /** Resolves when every worker runs; rejects when one cannot, with none left. */
  static async start(options: WorkerPoolOptions, deps: WorkerPoolDeps): Promise<WorkerPool> {
    await using undo = new AsyncDisposableStack();
    const pool = undo.use(new WorkerPool(options, deps));
    await Promise.all(pool.#slots.map((slot) => slot.start()));
    pool.#checkLater();
    undo.move();
    return pool;
  }

  async start(
    { uid, isAgent = false }: ServedPod,
    netns: Netns,
    inherited: Inheritance = NO_INHERITANCE,
  ): Promise<MovableSet> {
    const { fd, path, id } = netns;
    const entry: PodStart = { id: ++this.#lastPod, pod: { uid, isAgent }, netns: { fd, path, id } };
    this.#pods.set(entry.id, entry);
    const set: MovableSet = {
      leaveListeners: () => this.#leaveListeners(entry),
      moveSome: () => this.#moveSome(entry),
      adopt: (connections) => this.#adopt(entry, connections),
      stop: (mode) => this.#stopPod(entry, mode),
    };
    try {
      await this.#startPod(entry, inherited);
      return set;
    } catch (error) {
      await set.stop('immediate');
      throw error;
    } finally {
      // Workers have copies of what they took.
      for (const descriptor of descriptorsOf(inherited)) closeFd(descriptor);
    }
  }

  hasten(): void {
    for (const { link } of this.#running()) link.tell('hasten', undefined);
  }

  /** Each worker ends a part, as many as it has of all. */
  async shed(count: number): Promise<number> {
    const { live } = this.totals();
    const ended = await this.#askAll((worker) => {
      const part = Math.ceil((count * worker.mirror.totals().live) / Math.max(1, live));
      return worker.ask((link) => link.call('shed', part), 0);
    });
    return ended.reduce((sum, part) => sum + part, 0);
  }

  async trim(): Promise<void> {
    await Promise.all([
      collectGarbage(),
      this.#askAll((worker) => worker.ask((link) => link.call('trim', undefined), undefined)),
    ]);
  }

  async connections(): Promise<ConnectionsView> {
    const none: ConnectionsView = { open: [], refused: [] };
    const views = await this.#askAll((worker) => worker.ask((link) => link.call('connections', undefined), none));
    const lost = [...this.#lost.values()].reverse();
    return {
      open: views.flatMap(({ open }) => open).toSorted((a, b) => compare(a.openedAt, b.openedAt)),
      refused: [...lost, ...views.flatMap(({ refused }) => refused)].toSorted((a, b) =>
        compare(b.openedAt, a.openedAt),
      ),
    };
  }

  async find(id: string): Promise<ConnectionView | undefined> {
    const found = await this.#askAll((worker) => worker.ask((link) => link.call('find', id), undefined));
    return found.find((view) => view !== undefined) ?? this.#lost.get(id);
  }

  totals(): TrafficTotals {
    const all = this.#slots.map((slot) => slot.totals());
    const refused: Partial<Record<ReasonCode, number>> = {};
    for (const totals of all) {
      for (const [code, count] of totals.refused) refused[code] = (refused[code] ?? 0) + count;
    }
    const sum = (of: 'live' | 'opened'): number => all.reduce((total, totals) => total + totals[of], 0);
    return { live: sum('live'), opened: sum('opened'), refused };
  }

  async usage(): Promise<readonly WorkloadUse[]> {
    await this.#askAll(async (worker) => {
      const uses = await worker.ask((link) => link.call('usage', undefined), undefined);
      if (uses !== undefined) this.#usage.tell(worker.name, worker, uses);
    });
    return this.#usage.all();
  }

  threads(): readonly WorkerView[] {
    return this.#slots.map((slot, at) => ({
      name: `worker-${at + 1}`,
      state: slot.worker === undefined ? 'starting' : 'running',
      connections: slot.totals().live,
      restarts: slot.restarts,
    }));
  }

  inspectors(): Iterable<readonly [string, Inspect]> {
    return this.#running().map((worker) => [worker.name, (call) => worker.link.call('inspect', call)]);
  }

  async holdings(): Promise<readonly (readonly [string, Holdings])[]> {
    const held = await this.#askAll(async (worker) => {
      const holdings = await worker.ask<Holdings | undefined>((link) => link.call('holdings', undefined), undefined);
      return [worker.name, holdings] as const;
    });
    return held.flatMap(([name, holdings]) => (holdings === undefined ? [] : [[name, holdings] as const]));
  }

  async settle(): Promise<void> {
    await this.#askAll((worker) => worker.ask((link) => link.call('settle', undefined), undefined));
  }

  setBudgets({ standard, byPod }: BudgetTable): void {
    const { count } = this.#options;
    const part: BudgetTable = {
      standard: budgetPart(standard, count),
      byPod: byPod.map(([uid, budget]) => [uid, budgetPart(budget, count)]),
    };
    this.#budgets = part;
    for (const { link } of this.#running()) link.tell('setBudgets', part);
  }

  setLogFilter(filter: string): void {
    for (const { link } of this.#running()) link.tell('setLogFilter', filter);
  }

  /** Once no pod is served any more. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#checks?.[Symbol.dispose]();
    await Promise.all(this.#slots.map((slot) => slot.stop()));
  }

  #slot(name: string): WorkerSlot {
    const { clock, random, log, logFilter, onEnd } = this.#deps;
    const { worker } = this.#options;
    return new WorkerSlot({
      clock,
      random,
      log,
      makeWorker: () => {
        const start = { ...worker.start, logFilter: logFilter(), budgets: this.#budgets };
        const claim: WorkerDeps['claim'] = (asked, by) => this.#claim(asked, by);
        return new Worker({ ...worker, name, start }, { ...this.#deps, claim });
      },
      pods: () => this.#pods.values(),
      onEnd: (end, lost) => {
        log.error?.('data-plane worker ended, its connections with it', {
          worker: name,
          end,
          connections: lost.length,
        });
        for (const view of lost) this.#lost.set(view.id, view);
        onEnd(end);
      },
      onChange: () => this.#changed(),
    });
  }

  #changed(): void {
    for (const wake of [...this.#waiting]) wake();
    this.#deps.onHealth(this.#slots.every(({ isLooping }) => !isLooping));
  }

  /** A worker that comes later starts the pod by itself, without a part of what is inherited. */
  async #startPod(pod: PodStart, inherited: Inheritance): Promise<void> {
    const deadlineMs = this.#deps.clock.monotonicMs() + WORKER_WAIT_MS;
    for (let rest = inherited; ; ) {
      const serving = this.#slots.filter(({ worker }) => worker !== undefined);
      const parts = serving.map((slot, at) => slot.startPod(pod, partOf(rest, at, serving.length)));
      const done = await Promise.all(parts);
      if (done.includes(true)) return;
      // What a lost worker had taken is lost; nobody else had it.
      if (serving.length > 0) rest = NO_INHERITANCE;
      const leftMs = deadlineMs - this.#deps.clock.monotonicMs();
      if (leftMs <= 0) throw noWorker();
      await this.#change(leftMs);
    }
  }

  /** From now on a worker that takes the place of another does not serve the pod. */
  async #leaveListeners({ id }: PodStart): Promise<readonly InheritedListener[]> {
    this.#pods.delete(id);
    const none: readonly InheritedListener[] = [];
    const leave = (slot: WorkerSlot) => slot.ask((link) => link.call('leaveListeners', id), none);
    return (await Promise.all(this.#slots.map(leave))).flat();
  }

  async #moveSome({ id }: PodStart): Promise<Departed> {
    const none: Departed = { connections: [], isLast: true };
    const parts = await Promise.all(this.#slots.map((slot) => slot.ask((link) => link.call('moveSome', id), none)));
    return {
      connections: parts.flatMap(({ connections }) => connections),
      isLast: parts.every(({ isLast }) => isLast),
    };
  }

  /** What a worker does not take ends here. */
  async #adopt({ id }: PodStart, connections: readonly InheritedConnection[]): Promise<void> {
    const inherited = { listeners: [], connections };
    try {
      const serving = this.#slots.filter(({ worker }) => worker !== undefined);
      const parts = serving.map((slot, at) => {
        const adoption = { id, connections: partOf(inherited, at, serving.length).connections };
        return slot.ask((link) => link.call('adopt', adoption), undefined);
      });
      await Promise.all(parts);
    } finally {
      for (const descriptor of descriptorsOf(inherited)) closeFd(descriptor);
    }
  }

  async #claim(claim: StreamClaim, by: Worker): Promise<ClaimedStream> {
    const others = this.#running().filter((worker) => worker !== by);
    const asked = others.map((worker) => worker.link.call('surrender', claim).catch(() => undefined));
    const answers = await Promise.all(asked);
    const found = answers.find((answer) => answer !== undefined && answer !== 'foreign');
    if (found !== undefined && by.isOver) for (const fd of socketsOf(found)) closeFd(fd);
    return found ?? answers.find((answer) => answer === 'foreign');
  }

  /** Resolves when a worker has come or gone, or the time is over. */
  async #change(withinMs: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    using _deadline = this.#deps.clock.after(withinMs, resolve);
    this.#waiting.add(resolve);
    await promise;
    this.#waiting.delete(resolve);
  }

  async #stopPod(pod: PodStart, mode: StopMode): Promise<void> {
    this.#pods.delete(pod.id);
    await Promise.all(this.#slots.map((slot) => slot.stopPod({ id: pod.id, mode })));
  }

  #askAll<Answer>(ask: (worker: Worker) => Promise<Answer>): Promise<readonly Answer[]> {
    return Promise.all(this.#running().map(ask));
  }

  #running(): readonly Worker[] {
    return this.#slots.flatMap(({ worker }) => worker ?? []);
  }

  #checkLater(): void {
    this.#checks = this.#deps.clock.after(CHECK_MS, () => {
      const maxMissed = Math.ceil(this.#options.hangMs / CHECK_MS);
      for (const slot of this.#slots) slot.checkBeat(maxMissed);
      this.#checkLater();
    });
  }
}

/** The share of one of `count` workers: of each port's listeners, and of the connections. */
function partOf({ listeners, connections }: Inheritance, at: number, count: number): Inheritance {
  const ofPort = Map.groupBy(listeners, ({ port }) => port);
  return {
    listeners: [...ofPort.values()].flatMap((same) => same.filter((_, index) => index % count === at)),
    connections: connections.filter((_, index) => index % count === at),
  };
}

/** RFC 3339 in UTC, with as many fractional digits as needed. */
function compare(a: string, b: string): number {
  return a.replace('Z', '') < b.replace('Z', '') ? -1 : 1;
}
