/** What the workers tell of themselves and of their connections; those that have ended are not forgotten. */
import { BoundedMap } from '../../base/bounded-map.ts';
import type { TrafficTotals } from '../../telemetry/connection-records.ts';
import type { ConnectionView } from '../../telemetry/connection-view.ts';
import type { Holdings } from '../../telemetry/thread-series.ts';
import type { WorkloadUse } from '../../telemetry/workload-use.ts';
import type { ConnectionsView, WorkerView } from '../admin/views.ts';
import type { DataPlaneViews } from '../data-plane.ts';
import type { Inspect } from '../thread-inspector.ts';
import { UsageTable } from '../usage-table.ts';
import type { PooledPod } from './greedy-lane.ts';
import { askAll, type LaneWorkers } from './lane-workers.ts';
import type { Worker } from './worker.ts';
import { NO_TOTALS, type SlotTotals, sumOfTotals, type WorkerSlot } from './worker-slot.ts';

/** Connections that ended with their worker, remembered for `culvert explain`. */
const MAX_LOST = 1_024;
const NO_CONNECTIONS: ConnectionsView = { open: [], refused: [] };

export class PoolViews implements DataPlaneViews {
  /** Those there are now. */
  readonly #lanes: () => readonly LaneWorkers[];
  readonly #pods: () => Iterable<PooledPod>;
  readonly #lost = new BoundedMap<string, ConnectionView>(MAX_LOST);
  readonly #usage = new UsageTable();
  /** Of lanes that have ended. */
  #past: SlotTotals = NO_TOTALS;

  constructor(lanes: () => readonly LaneWorkers[], pods: () => Iterable<PooledPod>) {
    this.#lanes = lanes;
    this.#pods = pods;
  }

  async connections(): Promise<ConnectionsView> {
    const views = await askAll(this.#lanes(), (link) => link.call('connections', undefined), NO_CONNECTIONS);
    const refused = [...[...this.#lost.values()].reverse(), ...views.flatMap((view) => view.refused)];
    return {
      open: views.flatMap(({ open }) => open).toSorted((a, b) => compare(a.openedAt, b.openedAt)),
      refused: refused.toSorted((a, b) => compare(b.openedAt, a.openedAt)),
    };
  }

  async find(id: string): Promise<ConnectionView | undefined> {
    const found = await askAll(this.#lanes(), (link) => link.call('find', id), undefined);
    return found.find((view) => view !== undefined) ?? this.#lost.get(id);
  }

  totals(): TrafficTotals {
    const { live, opened, refused } = sumOfTotals([...this.#slots.map((slot) => slot.totals()), this.#past]);
    return { live, opened, refused: Object.fromEntries(refused) };
  }

  async usage(): Promise<readonly WorkloadUse[]> {
    await this.#askUsage(this.#lanes());
    return this.#usage.all();
  }

  greedyPods(): ReadonlySet<string> {
    const greedy = [...this.#pods()].filter(({ lane }) => lane === 'greedy');
    return new Set(greedy.map(({ start }) => start.pod.uid));
  }

  threads(): readonly WorkerView[] {
    return this.#slots.map((slot) => ({
      name: slot.name,
      state: slot.worker === undefined ? 'starting' : 'running',
      connections: slot.totals().live,
      restarts: slot.restarts,
    }));
  }

  inspectors(): Iterable<readonly [string, Inspect]> {
    const workers = this.#lanes().flatMap(({ running }) => running);
    return workers.map((worker) => [worker.name, (call) => worker.link.call('inspect', call)]);
  }

  async holdings(): Promise<readonly (readonly [string, Holdings])[]> {
    const ask = async (link: Worker['link'], { name }: Worker) =>
      [[name, await link.call('holdings', undefined)]] as const;
    return (await askAll<readonly (readonly [string, Holdings])[]>(this.#lanes(), ask, [])).flat();
  }

  async settle(): Promise<void> {
    await askAll(this.#lanes(), (link) => link.call('settle', undefined), undefined);
  }

  /** Their worker has ended, and they with it. */
  addLost(connections: readonly ConnectionView[]): void {
    for (const view of connections) this.#lost.set(view.id, view);
  }

  /** Workers are about to end, and no others take their places: what they have counted stays. They are not among the `lanes`. */
  async retire(lane: LaneWorkers): Promise<void> {
    this.#past = sumOfTotals([this.#past, ...lane.slots.map((slot) => slot.totals())]);
    await this.#askUsage([lane]);
    for (const { name } of lane.slots) this.#usage.end(name);
  }

  get #slots(): readonly WorkerSlot[] {
    return this.#lanes().flatMap(({ slots }) => slots);
  }

  async #askUsage(lanes: readonly LaneWorkers[]): Promise<void> {
    const ask = async (link: Worker['link'], worker: Worker) => ({ worker, uses: await link.call('usage', undefined) });
    // One that answers too late is not heard: somebody else may have its place.
    for (const told of await askAll<Awaited<ReturnType<typeof ask>> | undefined>(lanes, ask, undefined)) {
      if (told !== undefined) this.#usage.tell(told.worker.name, told.worker, told.uses);
    }
  }
}

/** RFC 3339 in UTC, with as many fractional digits as needed. */
function compare(a: string, b: string): number {
  return a.replace('Z', '') < b.replace('Z', '') ? -1 : 1;
}
