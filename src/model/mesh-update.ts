/** One change to the mesh, applied as a whole: what xDS pushes, and what a new mesh file differs in. */
import type { Policy, RejectedPolicy } from './policy.ts';
import type { Service, Workload } from './workload.ts';

/**
 * A source of many workloads makes its records through one `RecordStore` as it decodes: a second, larger copy of all of
 * them would else live until the update is applied. Others may tell plain objects.
 *
 * Upserts come first, then removals. A key is in one of the two at most.
 */
export interface MeshUpdate {
  /** Inserted, or in place of the record with the same `uid`. */
  readonly workloads: readonly Workload[];
  /** By `serviceKey`. */
  readonly services: readonly Service[];
  /** By `namespace/name`. */
  readonly policies: readonly Policy[];
  /** Fail closed for the workloads they select until replaced or removed, by `namespace/name`. */
  readonly rejectedPolicies: readonly RejectedPolicy[];
  /** UIDs. Unknown ones are no error, here and below. */
  readonly removedWorkloads: readonly string[];
  readonly removedServices: readonly string[];
  readonly removedPolicies: readonly string[];
}

export const NO_UPDATE: MeshUpdate = {
  workloads: [],
  services: [],
  policies: [],
  rejectedPolicies: [],
  removedWorkloads: [],
  removedServices: [],
  removedPolicies: [],
};

/** Records put into the index in one step: about 4 ms. */
const STEP_RECORDS = 1_000;

/** The same change in steps, each small enough for one turn. Who reads the mesh between them sees a part of the change. */
export function* stepsOf(update: MeshUpdate): Generator<MeshUpdate> {
  const { services, workloads } = update;
  if (services.length + workloads.length <= STEP_RECORDS) {
    yield update;
    return;
  }
  for (const some of chunksOf(services)) yield { ...NO_UPDATE, services: some };
  for (const some of chunksOf(workloads)) yield { ...NO_UPDATE, workloads: some };
  yield { ...update, services: [], workloads: [] };
}

function* chunksOf<T>(records: readonly T[]): Generator<readonly T[]> {
  for (let at = 0; at < records.length; at += STEP_RECORDS) yield records.slice(at, at + STEP_RECORDS);
}
