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
