/** The members of each service, whether or not the service is known: what arrives first waits here for the other. */
import type { Service, Workload } from './workload.ts';

/** All that decides who can take a connection, besides the service and its members. */
export interface Place {
  /** Service port. */
  readonly port: number;
  readonly isWaypoint: boolean;
  /** Of the client, as are `scopes`: what it is in each scope that the service prefers. */
  readonly network: string;
  readonly scopes: readonly string[];
}

/** Who can take a connection from a place, with running totals of their capacities to draw by. */
export interface EndpointPool {
  readonly place: Place;
  readonly members: readonly Workload[];
  readonly totals: readonly number[];
}

/** Pools kept per service: one per port and place of a client. A node's pods are in one place, so few are in use. */
const MAX_POOLS = 16;

/** So many that go at once are looked for one by one. */
const FEW = 16;

/** The members of one service, and what load balancing asks of them again and again. */
export class Members {
  /** As its members have it, the very string: looking it up in them compares no text. */
  readonly serviceKey: string;
  #all: Workload[] = [];
  /** Absent since somebody left, until asked for. */
  #maxCapacity: number | undefined = 0;
  /** Absent until one is kept since a change. */
  #pools: EndpointPool[] | undefined;
  #poolsOf: Service | undefined;

  constructor(serviceKey: string) {
    this.serviceKey = serviceKey;
  }

  /** In the order they were told. */
  get all(): readonly Workload[] {
    return this.#all;
  }

  /** Largest capacity among them. */
  get maxCapacity(): number {
    this.#maxCapacity ??= this.#all.reduce((most, { capacity }) => Math.max(most, capacity), 0);
    return this.#maxCapacity;
  }

  /** Whether one is kept, for whatever place. */
  hasPool(service: Service): boolean {
    return this.#pools !== undefined && this.#poolsOf === service;
  }

  pool(service: Service, place: Place): EndpointPool | undefined {
    return this.hasPool(service) ? this.#pools?.find((pool) => isSamePlace(pool.place, place)) : undefined;
  }

  /** Keeps a pool until a member or the service changes. */
  keep(service: Service, pool: EndpointPool): void {
    if (this.#pools === undefined || this.#poolsOf !== service || this.#pools.length >= MAX_POOLS) this.#pools = [];
    this.#poolsOf = service;
    this.#pools.push(pool);
  }

  add(workload: Workload): void {
    this.#all.push(workload);
    if (this.#maxCapacity !== undefined) this.#maxCapacity = Math.max(this.#maxCapacity, workload.capacity);
    this.#pools = undefined;
  }

  drop(workloads: ReadonlySet<Workload>): void {
    // One pod after the other is how members change: finding one costs a fiftieth of asking each.
    if (workloads.size > FEW) this.#all = this.#all.filter((member) => !workloads.has(member));
    else for (const workload of workloads) this.#dropOne(workload);
    this.#maxCapacity = undefined;
    this.#pools = undefined;
  }

  #dropOne(workload: Workload): void {
    const at = this.#all.indexOf(workload);
    if (at >= 0) this.#all.splice(at, 1);
  }
}

function isSamePlace(a: Place, b: Place): boolean {
  if (a.port !== b.port || a.isWaypoint !== b.isWaypoint || a.network !== b.network) return false;
  return a.scopes.every((scope, at) => scope === b.scopes[at]);
}

const NO_MEMBERS = new Members('');

export class MemberIndex {
  readonly #byService = new Map<string, Members>();

  keys(): Iterable<string> {
    return this.#byService.keys();
  }

  of(serviceKey: string): Members {
    return this.#byService.get(serviceKey) ?? NO_MEMBERS;
  }

  add(workload: Workload): void {
    for (const key of workload.services.keys()) {
      const members = this.#byService.get(key) ?? new Members(key);
      this.#byService.set(key, members);
      members.add(workload);
    }
  }

  /** Looks at each service they were members of once, however many of its members go. */
  drop(workloads: ReadonlySet<Workload>): void {
    const keys = new Set<string>();
    for (const workload of workloads) for (const key of workload.services.keys()) keys.add(key);
    for (const key of keys) {
      const members = this.#byService.get(key);
      members?.drop(workloads);
      if (members?.all.length === 0) this.#byService.delete(key);
    }
  }
}
