/** The data plane of an agent with workers: one lane of them for all pods, and one for greedy ones while there are such. */
import { type Clock, every } from '../../base/clock.ts';
import type { Logger } from '../../base/log.ts';
import type { Random } from '../../base/random.ts';
import type { StopMode } from '../../capture/capture-contract.ts';
import type { Lane, LaneLimits } from '../../model/lane.ts';
import { joined } from '../../proxy/departure.ts';
import {
  descriptorsOf,
  type Inheritance,
  type InheritedListener,
  NO_INHERITANCE,
  socketsOf,
  sumOfNeeds,
} from '../../proxy/inheritance.ts';
import type { ServedPart } from '../../proxy/pod-context.ts';
import { type ClaimedStream, claimedOf, type StreamClaim } from '../../proxy/settings.ts';
import { closeFd } from '../../sys/duplicate.ts';
import { collectGarbage } from '../../sys/garbage.ts';
import type { Netns } from '../../sys/sys.ts';
import type { WorkloadUse } from '../../telemetry/workload-use.ts';
import type { BudgetTable } from '../budgets.ts';
import type { DataPlane, MovableSet, ServedPod } from '../data-plane.ts';
import { GreedyLane, type PooledPod } from './greedy-lane.ts';
import { LaneBudgets } from './lane-budgets.ts';
import { askAll, LaneWorkers } from './lane-workers.ts';
import { PoolViews } from './pool-views.ts';
import type { PodStart } from './protocol.ts';
import { Worker, type WorkerDeps, type WorkerEnd, type WorkerOptions } from './worker.ts';
import { WorkerSlot } from './worker-slot.ts';

/** How often workers are looked at, and pods for their lanes. */
const CHECK_MS = 1_000;
/** Of threads, as people see them. */
const NAMES = { common: 'worker', greedy: 'greedy' } as const satisfies Record<Lane, string>;

export interface WorkerPoolOptions {
  readonly count: number;
  readonly worker: Omit<WorkerOptions, 'name' | 'start'> & {
    readonly start: Omit<WorkerOptions['start'], 'logFilter' | 'budgets' | 'lane'>;
  };
  /** A worker whose event loop stands still for so long is replaced, unless it has no CPU. */
  readonly hangMs: number;
  /** Absent: all pods share the workers whatever they use. */
  readonly lanes: (LaneLimits & { /** Of one worker of the greedy lane. */ readonly heapMib: number }) | undefined;
}

export interface WorkerPoolDeps extends Omit<WorkerDeps, 'claim' | 'busy' | 'attacked'> {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  /** The log filter in force. */
  readonly logFilter: () => string;
  readonly onEnd: (end: WorkerEnd) => void;
  /** Asks the agents before this one for a parked stream. */
  readonly claimBefore: (claim: StreamClaim) => Promise<ClaimedStream>;
  /** `false` while workers end again and again. */
  readonly onHealth: (isHealthy: boolean) => void;
}

export class WorkerPool implements DataPlane, AsyncDisposable {
  readonly views = new PoolViews(
    () => this.#lanes(),
    () => this.#pods.values(),
  );
  readonly #options: WorkerPoolOptions;
  readonly #deps: WorkerPoolDeps;
  readonly #common: LaneWorkers;
  readonly #greedy: GreedyLane | undefined;
  /** Those that are served, or soon will be; not those that are leaving. */
  readonly #pods = new Map<number, PooledPod>();
  readonly #budgets: LaneBudgets;
  #lastPod = 0;
  #checks: Disposable | undefined;

  private constructor(options: WorkerPoolOptions, deps: WorkerPoolDeps) {
    const { clock, log } = deps;
    const { lanes } = options;
    this.#options = options;
    this.#deps = deps;
    this.#budgets = new LaneBudgets(options.count, options.count * options.worker.start.settings.maxConnections);
    this.#common = this.#lane('common');
    this.#greedy =
      lanes &&
      new GreedyLane({
        limits: lanes,
        clock,
        log,
        common: this.#common,
        make: () => this.#lane('greedy'),
        pods: () => this.#pods.values(),
        areMixed: options.worker.start.settings.isShortCutAccepted,
        reckon: (pods, left) => this.#reckon(pods, left),
        retire: (workers) => this.views.retire(workers),
      });
  }

  /** Resolves when every worker runs; rejects when one cannot, with none left. */
  static async start(options: WorkerPoolOptions, deps: WorkerPoolDeps): Promise<WorkerPool> {
    await using undo = new AsyncDisposableStack();
    const pool = undo.use(new WorkerPool(options, deps));
    await pool.#common.start();
    pool.#checks = every(deps.clock, CHECK_MS, () => pool.#check());
    undo.move();
    return pool;
  }

  async start(
    { uid, isAgent = false }: ServedPod,
    netns: Netns,
    inherited: Inheritance = NO_INHERITANCE,
  ): Promise<MovableSet> {
    const { fd, path, id } = netns;
    const start: PodStart = { id: ++this.#lastPod, pod: { uid, isAgent }, netns: { fd, path, id } };
    const pod: PooledPod = { start, lane: 'common', isLeaving: false, change: undefined, hasLeft: false };
    this.#pods.set(start.id, pod);
    this.#greedy?.workers?.accompany(start);
    const set: MovableSet = {
      needs: async () => sumOfNeeds(await Promise.all(this.#lanes().map((lane) => lane.needs(start)))),
      warm: (needs) => this.#laneOf(pod).warm(start, needs),
      leaveListeners: () => this.#leaveListeners(pod),
      moveSome: async () => joined(await Promise.all(this.#lanes().map((lane) => lane.moveSome(start)))),
      surrender: (claim) => this.#surrender(claim, this.#running()),
      adopt: (connections) => this.#laneOf(pod).adopt(start, connections),
      stop: (mode) => this.#stopPod(pod, mode),
    };
    try {
      await this.#common.serve(start, inherited);
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
    const { live } = this.views.totals();
    const ask = (link: Worker['link'], { mirror }: Worker): Promise<number> =>
      link.call('shed', Math.ceil((count * mirror.totals().live) / Math.max(1, live)));
    const ended = await askAll(this.#lanes(), ask, 0);
    return ended.reduce((sum, part) => sum + part, 0);
  }

  async trim(): Promise<void> {
    const others = askAll(this.#lanes(), (link) => link.call('trim', undefined), undefined);
    await Promise.all([collectGarbage(), others]);
  }

  setBudgets(table: BudgetTable): void {
    this.#budgets.table = table;
    this.#tellBudgets();
  }

  setLogFilter(filter: string): void {
    for (const { link } of this.#running()) link.tell('setLogFilter', filter);
  }

  /** Once no pod is served any more. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#checks?.[Symbol.dispose]();
    await this.#greedy?.stop();
    await this.#common.stop();
  }

  #lane(lane: Lane): LaneWorkers {
    const slots = (workers: LaneWorkers): readonly WorkerSlot[] =>
      Array.from({ length: this.#options.count }, (_, at) => this.#slot(lane, `${NAMES[lane]}-${at + 1}`, workers));
    return new LaneWorkers({ lane, atRest: this.#atRest(lane), clock: this.#deps.clock, slots });
  }

  /** DNS stays with the common lane. A short cut is in the lane of the pod that calls, where the other one has to be too. */
  #atRest(lane: Lane): ServedPart | undefined {
    if (lane === 'common') return 'dns';
    return this.#options.worker.start.settings.isShortCutAccepted ? 'nothing' : undefined;
  }

  #slot(lane: Lane, name: string, workers: LaneWorkers): WorkerSlot {
    const { clock, random, log, logFilter, onEnd } = this.#deps;
    const { worker, lanes } = this.#options;
    return new WorkerSlot({
      name,
      clock,
      random,
      log,
      makeWorker: () => {
        const start = { ...worker.start, logFilter: logFilter(), budgets: this.#budgets.of(lane), lane: lanes && lane };
        const claim: WorkerDeps['claim'] = (asked, by) => this.#claim(asked, by);
        const busy: WorkerDeps['busy'] = (pods, of) => this.#greedy?.tell(of, pods);
        const attacked: WorkerDeps['attacked'] = (podUid) => this.#greedy?.attacked(podUid);
        const heapMib = lane === 'greedy' && lanes !== undefined ? lanes.heapMib : worker.heapMib;
        return new Worker({ ...worker, name, heapMib, start }, { ...this.#deps, claim, busy, attacked });
      },
      pods: () => workers.pods,
      onEnd: (end, ended) => {
        const fields = { worker: name, end, connections: ended.lost.length };
        log.error?.('data-plane worker ended, its connections with it', fields);
        this.#greedy?.forget(ended);
        this.views.addLost(ended.lost);
        onEnd(end);
      },
      onChange: () => this.#changed(),
    });
  }

  #changed(): void {
    for (const lane of this.#lanes()) lane.changed();
    this.#deps.onHealth(this.#slots().every(({ isLooping }) => !isLooping));
  }

  async #leaveListeners(pod: PooledPod): Promise<readonly InheritedListener[]> {
    await this.#leaving(pod);
    return (await Promise.all(this.#lanes().map((lane) => lane.leave(pod.start)))).flat();
  }

  async #claim(claim: StreamClaim, by: Worker): Promise<ClaimedStream> {
    const others = this.#running().filter((worker) => worker !== by);
    let found = await this.#surrender(claim, others);
    if (typeof found === 'string' && found !== 'foreign')
      found = claimedOf([found, await this.#deps.claimBefore(claim)]);
    if (typeof found === 'object' && by.isOver) for (const fd of socketsOf(found)) closeFd(fd);
    return found;
  }

  /** What a worker had that has ended is nowhere. */
  async #surrender(claim: StreamClaim, workers: readonly Worker[]): Promise<ClaimedStream> {
    const asked = workers.map((worker) => worker.link.call('surrender', claim).catch(() => 'nowhere' as const));
    return claimedOf(await Promise.all(asked));
  }

  async #stopPod(pod: PooledPod, mode: StopMode): Promise<void> {
    await this.#leaving(pod);
    await Promise.all([...this.#lanes().map((lane) => lane.stopPod(pod.start, mode)), this.#greedy?.ending]);
    this.#budgets.leave(pod.start.pod.uid, undefined);
  }

  /** It changes lanes no more. */
  async #leaving(pod: PooledPod): Promise<void> {
    this.#pods.delete(pod.start.id);
    pod.isLeaving = true;
    await pod.change;
  }

  /** See `GreedyLaneDeps`. */
  async #reckon(pods: readonly PooledPod[], lane: Lane): Promise<ReadonlySet<PooledPod>> {
    const lanes = this.#lanes().filter((workers) => workers.lane === lane);
    const asked = await askAll<readonly WorkloadUse[]>(lanes, (link) => link.call('usage', undefined), []);
    const uses = Map.groupBy(asked.flat(), ({ podUid }) => podUid);
    const left = new Set<PooledPod>();
    let isNews = false;
    for (const pod of pods) {
      const { uid } = pod.start.pod;
      const connections = (uses.get(uid) ?? []).reduce((sum, { openConnections }) => sum + openConnections, 0);
      if (connections > 0) left.add(pod);
      isNews = this.#budgets.leave(uid, connections === 0 ? undefined : { lane, connections }) || isNews;
    }
    if (isNews) this.#tellBudgets();
    return left;
  }

  #tellBudgets(): void {
    for (const lane of ['common', 'greedy'] as const) {
      const table = this.#budgets.of(lane);
      if (table === undefined) continue;
      for (const { link } of this.#workersOf(lane)?.running ?? []) link.tell('setBudgets', table);
    }
  }

  #laneOf({ lane }: PooledPod): LaneWorkers {
    return this.#workersOf(lane) ?? this.#common;
  }

  #workersOf(lane: Lane): LaneWorkers | undefined {
    return this.#lanes().find((workers) => workers.lane === lane);
  }

  #lanes(): readonly LaneWorkers[] {
    const greedy = this.#greedy?.workers;
    return greedy === undefined ? [this.#common] : [this.#common, greedy];
  }

  #slots(): readonly WorkerSlot[] {
    return this.#lanes().flatMap(({ slots }) => slots);
  }

  #running(): readonly Worker[] {
    return this.#lanes().flatMap((lane) => lane.running);
  }

  #check(): void {
    for (const slot of this.#slots()) slot.checkBeat(CHECK_MS, this.#options.hangMs);
    this.#greedy?.look();
  }
}
