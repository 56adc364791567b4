/** The members of each service, whether or not the service is known: what arrives first waits here for the other. */
import { append } from '../base/multimap.ts';
import type { Workload } from './workload.ts';

/** The members of one service at one moment, and what load balancing asks of them again and again. */
export interface Members {
  /** In the order they were told. */
  readonly all: readonly Workload[];
  readonly maxCapacity: number;
}

const NO_MEMBERS: Members = { all: [], maxCapacity: 0 };

export class MemberIndex {
  readonly #byService = new Map<string, Workload[]>();
  /** Made when first asked for, dropped when a member comes or goes. */
  readonly #views = new Map<string, Members>();

  keys(): Iterable<string> {
    return this.#byService.keys();
  }

  of(serviceKey: string): Members {
    const known = this.#views.get(serviceKey);
    if (known !== undefined) return known;
    const all = this.#byService.get(serviceKey);
    if (all === undefined) return NO_MEMBERS;
    const view = { all, maxCapacity: all.reduce((most, { capacity }) => Math.max(most, capacity), 0) };
    this.#views.set(serviceKey, view);
    return view;
  }

  add(workload: Workload): void {
    for (const key of workload.services.keys()) {
      append(this.#byService, key, workload);
      this.#views.delete(key);
    }
  }

  /** Looks at each service they were members of once, however many of its members go. */
  drop(workloads: ReadonlySet<Workload>): void {
    const keys = new Set<string>();
    for (const workload of workloads) for (const key of workload.services.keys()) keys.add(key);
    for (const key of keys) {
      const left = this.#byService.get(key)?.filter((member) => !workloads.has(member)) ?? [];
      this.#views.delete(key);
      if (left.length === 0) this.#byService.delete(key);
      else this.#byService.set(key, left);
    }
  }
}
