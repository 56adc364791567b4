/** Makes the records the index keeps from those that sources tell, so that equal parts of different records exist once. */
import { RecentMap } from '../base/recent-map.ts';
import { sameBalancer, sameLocality, samePorts, sameProfile } from './same-part.ts';
import type { Locality, Service, Workload } from './workload.ts';
import { type WorkloadProfile, WorkloadRecord } from './workload-record.ts';

type Ports = ReadonlyMap<number, number>;

/** Distinct texts in use at a time, to twice that; with more some exist twice. About 100 bytes each. */
const MAX_TEXTS = 32_768;
/** Parts under one key: bounds the search where the key tells little apart. */
const MAX_PER_KEY = 8;
/** Keys before the first look for parts that nobody has any more. */
const FIRST_SWEEP = 1_024;

const NO_LIST: readonly never[] = [];

export class RecordStore {
  readonly #texts = new RecentMap<string>(MAX_TEXTS);
  readonly #profiles = new SharedParts(sameProfile);
  readonly #localities = new SharedParts(sameLocality);
  readonly #ports = new SharedParts(samePorts);
  readonly #balancers = new SharedParts(sameBalancer);

  /** One that was made by a store already stays as it is. */
  workload(from: Workload): Workload {
    if (from instanceof WorkloadRecord) return from;
    const ips = from.ips.length === 0 ? NO_LIST : from.ips;
    const { uid, name, hostname } = from;
    const own = { uid, name, hostname, ips, node: this.#text(from.node), locality: this.#locality(from.locality) };
    return new WorkloadRecord(own, this.#profile(from));
  }

  service(from: Service): Service {
    return {
      ...from,
      namespace: this.#text(from.namespace),
      vips: from.vips.map(({ network, ip }) => ({ network: this.#text(network), ip })),
      cidrVips: orEmpty(from.cidrVips),
      ports: this.#portMap(from.ports),
      subjectAltNames: orEmpty(from.subjectAltNames),
      weightedWaypoints: orEmpty(from.weightedWaypoints),
      loadBalancer: this.#balancers.get(from.loadBalancer.mode, from.loadBalancer, () => from.loadBalancer),
    };
  }

  #profile(from: Workload): WorkloadProfile {
    return this.#profiles.get(`${from.namespace}/${from.workloadName}`, from, () => ({
      namespace: this.#text(from.namespace),
      trustDomain: this.#text(from.trustDomain),
      serviceAccount: this.#text(from.serviceAccount),
      network: this.#text(from.network),
      clusterId: this.#text(from.clusterId),
      protocol: from.protocol,
      networkMode: from.networkMode,
      nativeTunnel: from.nativeTunnel,
      workloadName: this.#text(from.workloadName),
      workloadType: from.workloadType,
      canonicalName: this.#text(from.canonicalName),
      canonicalRevision: this.#text(from.canonicalRevision),
      status: from.status,
      capacity: from.capacity,
      waypoint: from.waypoint,
      networkGateway: from.networkGateway,
      applicationTunnel: from.applicationTunnel,
      authorizationPolicies: orEmpty(from.authorizationPolicies.map((key) => this.#text(key))),
      services: new Map([...from.services].map(([key, ports]) => [this.#text(key), this.#portMap(ports)] as const)),
    }));
  }

  #locality(from: Locality): Locality {
    return this.#localities.get(from.zone, from, () => ({
      region: this.#text(from.region),
      zone: this.#text(from.zone),
      subzone: this.#text(from.subzone),
    }));
  }

  #portMap(from: Ports): Ports {
    return this.#ports.get(String(from.keys().next().value), from, () => new Map(from));
  }

  #text(value: string): string {
    const known = this.#texts.get(value);
    if (known !== undefined) return known;
    this.#texts.set(value, value);
    return value;
  }
}

/**
 * Parts by a key that nearly tells them apart, and `isSame` for the rest. Holds none of them back: a part that no record has
 * any more is collected, and its key with the next sweep, so never more than twice the keys in use are kept.
 */
class SharedParts<T extends object> {
  readonly #byKey = new Map<string, readonly WeakRef<T>[]>();
  readonly #isSame: (a: T, b: T) => boolean;
  #sweepAt = FIRST_SWEEP;

  constructor(isSame: (a: T, b: T) => boolean) {
    this.#isSame = isSame;
  }

  /** The part equal to `wanted` that was made before, or what `make` gives. */
  get(key: string, wanted: T, make: () => T): T {
    const parts = this.#byKey.get(key) ?? [];
    for (const part of parts) {
      const known = part.deref();
      if (known !== undefined && this.#isSame(known, wanted)) return known;
    }
    const made = make();
    const others = parts.filter(isAlive).slice(1 - MAX_PER_KEY);
    this.#byKey.set(key, [...others, new WeakRef(made)]);
    if (this.#byKey.size >= this.#sweepAt) this.#sweep();
    return made;
  }

  #sweep(): void {
    for (const [key, parts] of this.#byKey) if (!parts.some(isAlive)) this.#byKey.delete(key);
    this.#sweepAt = Math.max(FIRST_SWEEP, 2 * this.#byKey.size);
  }
}

function isAlive(part: WeakRef<object>): boolean {
  return part.deref() !== undefined;
}

function orEmpty<T>(list: readonly T[]): readonly T[] {
  return list.length === 0 ? NO_LIST : list;
}
