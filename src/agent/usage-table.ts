/** What workloads use, over all threads and whatever became of them: totals never go back while a pod is served. */
import { sumOf, type WorkloadUse } from '../telemetry/workload-use.ts';

/** One place of a thread: who has it now, and what its predecessors had counted. */
interface Place {
  readonly owner: object;
  readonly latest: readonly WorkloadUse[];
  readonly past: readonly WorkloadUse[];
}

export class UsageTable {
  readonly #places = new Map<string, Place>();

  /** `owner`, which has the place called `name`, says what it has counted since its start. */
  tell(name: string, owner: object, latest: readonly WorkloadUse[]): void {
    const former = this.#places.get(name);
    const past = former === undefined ? [] : former.owner === owner ? former.past : pastOf(former);
    const served = new Set(latest.map(({ podUid }) => podUid));
    this.#places.set(name, { owner, latest, past: past.filter(({ podUid }) => served.has(podUid)) });
  }

  /** Of the pods that are served somewhere. */
  all(): readonly WorkloadUse[] {
    const uses = [...this.#places.values()].flatMap(({ latest, past }) => [...latest, ...past]);
    return summed(uses);
  }
}

function pastOf({ latest, past }: Place): readonly WorkloadUse[] {
  const ended = latest.map((use) => ({ ...use, openConnections: 0, pendingHandshakes: 0, bufferedBytes: 0 }));
  return summed([...ended, ...past]);
}

function summed(uses: readonly WorkloadUse[]): readonly WorkloadUse[] {
  return [...Map.groupBy(uses, ({ podUid }) => podUid)].map(([uid, same]) => sumOf(uid, same));
}
