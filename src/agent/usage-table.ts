/** What workloads use, over all threads and whatever became of them: totals never go back while a pod is served. */
import { sumOf, type WorkloadUse } from '../telemetry/workload-use.ts';

/** Who has the place of a thread, and what it has counted since its start. */
interface Place {
  readonly owner: object;
  readonly latest: readonly WorkloadUse[];
}

export class UsageTable {
  readonly #places = new Map<string, Place>();
  /** What former owners had counted, of pods that are served somewhere. */
  #past: readonly WorkloadUse[] = [];

  /** `owner`, which has the place called `name`, says what it has counted since its start. */
  tell(name: string, owner: object, latest: readonly WorkloadUse[]): void {
    if (this.#places.get(name)?.owner !== owner) this.end(name);
    this.#places.set(name, { owner, latest });
    const served = new Set([...this.#places.values()].flatMap((place) => place.latest.map(({ podUid }) => podUid)));
    this.#past = this.#past.filter(({ podUid }) => served.has(podUid));
  }

  /** Whoever had the place is no more. */
  end(name: string): void {
    const { latest = [] } = this.#places.get(name) ?? {};
    this.#places.delete(name);
    const ended = latest.map((use) => ({ ...use, openConnections: 0, pendingHandshakes: 0, bufferedBytes: 0 }));
    this.#past = summed([...ended, ...this.#past]);
  }

  /** Of the pods that are served somewhere. */
  all(): readonly WorkloadUse[] {
    return summed([...[...this.#places.values()].flatMap(({ latest }) => latest), ...this.#past]);
  }
}

function summed(uses: readonly WorkloadUse[]): readonly WorkloadUse[] {
  return [...Map.groupBy(uses, ({ podUid }) => podUid)].map(([uid, same]) => sumOf(uid, same));
}
