/** What a pod may use in one worker of each lane, so that it never has more than its budget while it has connections in both. */
import { type Budget, budgetPart } from '../../model/budget.ts';
import type { Lane } from '../../model/lane.ts';
import type { BudgetTable } from '../budgets.ts';

/** What a pod has open in the lane that it has left. */
interface Left {
  readonly lane: Lane;
  readonly connections: number;
}

export class LaneBudgets {
  /** Workers of a lane. */
  readonly #count: number;
  /** Of a pod, whatever its budget says. */
  readonly #maxConnections: number;
  #table: BudgetTable | undefined;
  readonly #left = new Map<string, Left>();

  constructor(count: number, maxConnections: number) {
    this.#count = count;
    this.#maxConnections = maxConnections;
  }

  set table(table: BudgetTable) {
    this.#table = table;
  }

  /** True: other parts than before. Of a pod that has nothing left there, or has gone, `left` is absent. */
  leave(uid: string, left: Left | undefined): boolean {
    const former = this.#left.get(uid);
    if (left === undefined) this.#left.delete(uid);
    else this.#left.set(uid, left);
    return former?.lane !== left?.lane || former?.connections !== left?.connections;
  }

  /** Of one worker of `lane`; `undefined` until somebody says what there is. */
  of(lane: Lane): BudgetTable | undefined {
    const table = this.#table;
    if (table === undefined) return undefined;
    const own = new Map(table.byPod);
    for (const [uid, left] of this.#left) own.set(uid, this.#rest(own.get(uid) ?? table.standard, left, lane));
    return {
      standard: budgetPart(table.standard, this.#count),
      byPod: [...own].map(([uid, budget]) => [uid, budgetPart(budget, this.#count)]),
    };
  }

  /** What is open counts where the pod is now; of buffers, which come and go, each lane has half. */
  #rest(budget: Budget, { lane: former, connections }: Left, lane: Lane): Budget {
    const bufferedBytes = Math.ceil(budget.bufferedBytes / 2);
    if (lane === former) return { ...budget, bufferedBytes };
    const most = Math.min(budget.connections, this.#maxConnections);
    return { ...budget, bufferedBytes, connections: Math.max(1, most - connections) };
  }
}
