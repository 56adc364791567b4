/** A response as one change of the mesh, or as the reasons why none of it is used. Works in slices between turns of the event loop. */
import { type Clock, delay } from '../base/clock.ts';
import type { AdsResource } from '../model/ads-names.ts';
import { type MeshUpdate, NO_UPDATE } from '../model/mesh-update.ts';
import type { Policy, RejectedPolicy } from '../model/policy.ts';
import type { RecordStore } from '../model/record-store.ts';
import type { Service, Workload } from '../model/workload.ts';
import type { DeltaResponse } from './delta-response.ts';
import { type DecodedResource, decodeResource, type KnownKey } from './resource-envelope.ts';
import { TYPE_URL } from './type-url.ts';

export interface ResponseDecoding {
  /** What could be decoded. */
  readonly resources: readonly AdsResource[];
  readonly records: MeshRecords;
  /** Why nothing of it may be used; absent when all of it may. */
  readonly rejection?: Rejection;
}

export interface Rejection {
  /** `name: reason` of the first bad ones, joined by `; `. */
  readonly reason: string;
  readonly badCount: number;
  /** The policies among them that say whom they select. */
  readonly policies: readonly BadPolicy[];
}

export interface BadPolicy {
  /** Of the resource. */
  readonly name: string;
  readonly policy: RejectedPolicy;
  /** The resource itself. */
  readonly bytes: Uint8Array;
}

/** By key: of two resources with one key the last counts. */
export interface MeshRecords {
  readonly workloads: ReadonlyMap<string, Workload>;
  readonly services: ReadonlyMap<string, Service>;
  readonly policies: ReadonlyMap<string, Policy>;
}

/** Longest turn, milliseconds: what the data plane on the same thread waits at most. */
const SLICE_MS = 4;
/** Resources between two looks at the clock. */
const STEP = 16;
/** Longest reason sent to the control plane and logged, characters. */
const MAX_REASON = 4_096;
/** Bad resources told by name. Of addresses no more are looked for, of policies many: each of them may have to fail closed. */
const MAX_TOLD = 20;
const MAX_BAD = { addresses: MAX_TOLD, policies: 10_000 } as const;

export interface DecodeDeps {
  readonly clock: Clock;
  /** Makes records small as they come: 100,000 large ones would else live until the last of them is decoded. */
  readonly records: RecordStore;
}

export async function decodeResponse(
  response: DeltaResponse,
  knownKey: KnownKey,
  { clock, records }: DecodeDeps,
): Promise<ResponseDecoding> {
  const isPolicies = response.typeUrl === TYPE_URL.authorization;
  const maxBad = isPolicies ? MAX_BAD.policies : MAX_BAD.addresses;
  const collector = new Collector(records);
  if (response.excess !== undefined) return collector.outcome({ reason: response.excess, badCount: 1, policies: [] });
  let sliceMs = clock.monotonicMs();
  for (let i = 0; i < response.resources.count && collector.badCount < maxBad; i += 1) {
    const bytes = response.resources.at(i);
    collector.add(decodeResource(response.typeUrl, bytes, knownKey), bytes);
    if (i % STEP !== 0 || clock.monotonicMs() - sliceMs < SLICE_MS) continue;
    await delay(clock, 0);
    sliceMs = clock.monotonicMs();
  }
  return collector.outcome();
}

/** Refuses, for the workloads they select, what these policies could decide. */
export function refusingUpdate(policies: readonly BadPolicy[]): MeshUpdate {
  return { ...NO_UPDATE, rejectedPolicies: policies.map(({ policy }) => policy) };
}

/** What is left of the records after the removals of the same response, and the removals. */
export function updateOf(records: MeshRecords, removedKeys: ReadonlySet<string>, isPolicies: boolean): MeshUpdate {
  const removed = [...removedKeys];
  return {
    ...NO_UPDATE,
    workloads: kept(records.workloads, removedKeys),
    services: kept(records.services, removedKeys),
    policies: kept(records.policies, removedKeys),
    // The name does not say whether an address was a workload or a service; a key that is neither is no error.
    ...(isPolicies ? { removedPolicies: removed } : { removedWorkloads: removed, removedServices: removed }),
  };
}

function kept<T>(records: ReadonlyMap<string, T>, removedKeys: ReadonlySet<string>): readonly T[] {
  if (removedKeys.size === 0) return [...records.values()];
  return [...records].flatMap(([key, record]) => (removedKeys.has(key) ? [] : [record]));
}

class Collector {
  readonly #store: RecordStore;
  readonly #resources: AdsResource[] = [];
  readonly #workloads = new Map<string, Workload>();
  readonly #services = new Map<string, Service>();
  readonly #policies = new Map<string, Policy>();
  readonly #reasons: string[] = [];
  readonly #badPolicies: BadPolicy[] = [];
  badCount = 0;

  constructor(store: RecordStore) {
    this.#store = store;
  }

  add(decoded: DecodedResource, bytes: Uint8Array): void {
    switch (decoded.kind) {
      case 'good':
        this.#resources.push(decoded.resource);
        this.#addRecord(decoded.record);
        break;
      case 'unchanged':
        this.#resources.push(decoded.resource);
        break;
      case 'bad':
        this.#addBad(decoded, bytes);
        break;
    }
  }

  outcome(rejection = this.#rejection()): ResponseDecoding {
    const records = { workloads: this.#workloads, services: this.#services, policies: this.#policies };
    return { resources: this.#resources, records, ...(rejection !== undefined && { rejection }) };
  }

  #rejection(): Rejection | undefined {
    if (this.badCount === 0) return undefined;
    const more = this.badCount >= MAX_TOLD ? '; and perhaps more' : '';
    const reason = `${this.#reasons.join('; ').slice(0, MAX_REASON)}${more}`;
    return { reason, badCount: this.badCount, policies: this.#badPolicies };
  }

  #addRecord(record: (DecodedResource & { readonly kind: 'good' })['record']): void {
    if (record.kind === 'workload') this.#workloads.set(record.key, this.#store.workload(record.workload));
    else if (record.kind === 'service') this.#services.set(record.key, this.#store.service(record.service));
    else this.#policies.set(record.key, record.policy);
  }

  #addBad({ name, why, policy }: DecodedResource & { readonly kind: 'bad' }, bytes: Uint8Array): void {
    this.badCount += 1;
    if (this.#reasons.length < MAX_TOLD) this.#reasons.push(`${name.slice(0, 200)}: ${why.slice(0, 500)}`);
    if (policy !== undefined) this.#badPolicies.push({ name, policy, bytes });
  }
}
