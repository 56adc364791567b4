/** The members of each service, whether or not the service is known: what arrives first waits here for the other. */
import { append } from '../base/multimap.ts';
import type { Service, Workload } from './workload.ts';

/** Who can take a connection, with running totals of their capacities to draw by. */
export interface EndpointPool {
  readonly members: readonly Workload[];
  readonly totals: readonly number[];
}

/** Pools kept per service: one per port and place of a client. A node's pods are in one place, so few are in use. */
const MAX_POOLS = 16;

/** The members of one service at one moment, and what load balancing asks of them again and again. */
export class Members {
  /** In the order they were told. */
  readonly all: readonly Workload[];
  /** Largest capacity among them. */
  readonly maxCapacity: number;
  readonly #pools = new Map<string, EndpointPool>();
  #poolsOf: Service | undefined;

  constructor(all: readonly Workload[]) {
    this.all = all;
    this.maxCapacity = all.reduce((most, { capacity }) => Math.max(most, capacity), 0);
  }

  /** What `make` gave for this key and record of the service before, or gives now. */
  pool(service: Service, key: string, make: () => EndpointPool): EndpointPool {
    if (this.#poolsOf !== service) this.#pools.clear();
    this.#poolsOf = service;
    const known = this.#pools.get(key);
    if (known !== undefined) return known;
    const made = make();
    if (this.#pools.size >= MAX_POOLS) this.#pools.clear();
    this.#pools.set(key, made);
    return made;
  }
}

const NO_MEMBERS = new Members([]);

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
    const view = new Members(all);
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
