/** What no single record shows: duplicates, references to things the file does not have, and policies without effect. */
import { isKnownReference, referenceText } from '../model/gateway-reference.ts';
import { MeshIndex } from '../model/mesh-index.ts';
import { type Policy, policyKey } from '../model/policy.ts';
import { type GatewayAddress, type Service, serviceKey, type Workload } from '../model/workload.ts';
import type { ListedEndpoint } from './decode-service.ts';
import { type Issues, type Path, quote } from './decode-value.ts';

/** A record and where it was written. */
export interface Placed<T> {
  readonly path: Path;
  readonly record: T;
}

export interface PlacedMesh {
  readonly workloads: readonly Placed<Workload>[];
  readonly services: readonly Placed<Service>[];
  readonly policies: readonly Placed<Policy>[];
}

export function checkDuplicates({ workloads, services, policies }: PlacedMesh, issues: Issues): void {
  refuseDuplicates(workloads, { keyOf: ({ uid }) => uid, field: 'uid', what: 'workload UID' }, issues);
  refuseDuplicates(services, { keyOf: serviceKey, field: 'hostname', what: 'service' }, issues);
  refuseDuplicates(policies, { keyOf: policyKey, field: 'name', what: 'policy' }, issues);
}

function refuseDuplicates<T>(
  placed: readonly Placed<T>[],
  { keyOf, field, what }: { keyOf: (record: T) => string; field: string; what: string },
  issues: Issues,
): void {
  const firstPaths = new Map<string, Path>();
  for (const { path, record } of placed) {
    const key = keyOf(record);
    const firstPath = firstPaths.get(key);
    if (firstPath === undefined) firstPaths.set(key, [...path, field]);
    else {
      const problem = `duplicate ${what} ${quote(key)}`;
      issues.add({ path: [...path, field], isKey: false, problem, cure: 'keep one of them', firstPath });
    }
  }
}

/** A waypoint or gateway that does not exist would refuse every connection later; better to refuse the file now. */
export function checkReferences({ workloads, services, policies }: PlacedMesh, issues: Issues): void {
  const index = new MeshIndex({
    workloads: workloads.map(({ record }) => record),
    services: services.map(({ record }) => record),
    policies: policies.map(({ record }) => record),
    rejectedPolicies: [],
  });
  const check = (reference: GatewayAddress | undefined, path: Path): void => {
    if (reference === undefined || isKnownReference(index, reference)) return;
    const problem = `${quote(referenceText(reference))} is neither a service nor a workload of this file`;
    issues.add({ path: [...path, 'destination'], isKey: false, problem, cure: 'add it, or correct the reference' });
  };
  for (const { path, record } of workloads) {
    check(record.waypoint, [...path, 'waypoint']);
    check(record.networkGateway, [...path, 'networkGateway']);
  }
  for (const { path, record } of services) {
    check(record.waypoint, [...path, 'waypoint']);
    for (const [i, { destination }] of record.weightedWaypoints.entries()) {
      check(destination, [...path, 'weightedWaypoints', i, 'destination']);
    }
  }
}

/** Allowed, because other sources may supply the rest, but in a file more often a slip of the pen. */
export function findOddities({ workloads, services, policies }: PlacedMesh, warnings: Issues): void {
  const policyKeys = new Set(policies.map(({ record }) => policyKey(record)));
  const serviceKeys = new Set(services.map(({ record }) => serviceKey(record)));
  const selected = new Set(workloads.flatMap(({ record }) => record.authorizationPolicies));
  for (const { path, record } of workloads) {
    for (const [i, key] of record.authorizationPolicies.entries()) {
      if (policyKeys.has(key)) continue;
      const problem = `workload ${quote(record.uid)} names policy ${quote(key)}, which does not exist: it decides nothing`;
      warnings.add({ path: [...path, 'authorizationPolicies', i], isKey: false, problem, cure: 'add the policy' });
    }
    for (const key of record.services.keys()) {
      if (serviceKeys.has(key)) continue;
      const problem = `workload ${quote(record.uid)} is an endpoint of ${quote(key)}, which does not exist`;
      warnings.add({ path: [...path, 'services', key], isKey: true, problem, cure: 'add the service' });
    }
  }
  for (const { path, record } of policies) {
    if (record.scope !== 'WorkloadSelector' || selected.has(policyKey(record))) continue;
    const problem = `policy ${quote(policyKey(record))} selects workloads, but no workload names it: it decides nothing`;
    warnings.add({ path: [...path, 'scope'], isKey: false, problem, cure: 'list it in authorizationPolicies' });
  }
}

/** Endpoints written inside services become memberships of the workloads they name. */
export function withListedEndpoints(
  workloads: readonly Placed<Workload>[],
  endpoints: readonly ListedEndpoint[],
  issues: Issues,
): readonly Placed<Workload>[] {
  if (endpoints.length === 0) return workloads;
  const byUid = new Map(workloads.map((placed) => [placed.record.uid, placed]));
  for (const endpoint of endpoints) {
    const placed = byUid.get(endpoint.workloadUid);
    const conflict = conflictOf(endpoint, placed?.record);
    if (conflict !== undefined || placed === undefined) {
      const problem = conflict ?? 'unknown workload';
      issues.add({
        path: endpoint.path,
        isKey: true,
        problem,
        cure: 'correct it, or remove it: services of the workload is enough',
      });
      continue;
    }
    const services = new Map([...placed.record.services, [endpoint.serviceKey, endpoint.ports] as const]);
    byUid.set(endpoint.workloadUid, { ...placed, record: { ...placed.record, services } });
  }
  return workloads.map((placed) => byUid.get(placed.record.uid) ?? placed);
}

function conflictOf(endpoint: ListedEndpoint, workload: Workload | undefined): string | undefined {
  if (workload === undefined) return `endpoint ${quote(endpoint.workloadUid)} is not a workload of this file`;
  if (endpoint.status !== undefined && endpoint.status !== workload.status) {
    return `endpoint ${quote(workload.uid)} is ${endpoint.status}, but the workload is ${workload.status}`;
  }
  const ports = workload.services.get(endpoint.serviceKey);
  if (ports === undefined || isSameMap(ports, endpoint.ports)) return undefined;
  return `endpoint ${quote(workload.uid)} has other ports than the workload says for this service`;
}

function isSameMap(a: ReadonlyMap<number, number>, b: ReadonlyMap<number, number>): boolean {
  return a.size === b.size && [...a].every(([key, value]) => b.get(key) === value);
}
