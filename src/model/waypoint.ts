/** Waypoint resolution: which instance a connection goes through. A waypoint is never bypassed. */
import type { Random } from '../base/random.ts';
import { isInstanceOf, missingKey, referenceText, resolveReference } from './gateway-reference.ts';
import { pickWeighted, type Upstream } from './load-balance.ts';
import type { MeshIndex } from './mesh-index.ts';
import { workloadIdentity } from './spiffe.ts';
import type { Refusal } from './verdict.ts';
import type { GatewayAddress, Service, Workload } from './workload.ts';

export type WaypointChoice =
  | { readonly kind: 'instance'; readonly upstream: Upstream; readonly reference: GatewayAddress }
  /** `missing`: key of the waypoint, when nothing is known by it. */
  | { readonly kind: 'refuse'; readonly refusal: Refusal; readonly missing?: string | undefined };

export function hasWaypoint(service: Service): boolean {
  return service.waypoint !== undefined || service.weightedWaypoints.length > 0;
}

/** Which waypoint reference this connection uses: one by weight, or the single one when weights cannot decide. */
export function chooseWaypoint(service: Service, random: Random): GatewayAddress | undefined {
  const weighted = service.weightedWaypoints;
  const chosen = weighted.length > 0 ? pickWeighted(weighted, ({ weight }) => weight, random) : undefined;
  return chosen?.destination ?? service.waypoint;
}

type Unusable = Extract<WaypointChoice, { kind: 'refuse' }>;

export function waypointInstance(
  index: MeshIndex,
  reference: GatewayAddress | undefined,
  source: Workload,
  random: Random,
): WaypointChoice {
  if (reference === undefined) return unknownWaypoint('no weight is above zero and no single waypoint is set');
  const upstream = resolveReference(index, { reference, source }, random);
  if (upstream === undefined) {
    const choice = unknownWaypoint(`${referenceText(reference)} has no instance that can serve`);
    return { ...choice, missing: missingKey(index, reference) };
  }
  return { kind: 'instance', upstream, reference };
}

/** True when the client is an instance of the waypoint: its traffic has been through it already. */
export function isFromWaypoint(
  index: MeshIndex,
  waypoint: GatewayAddress,
  client: { readonly workload: Workload; readonly ip: string },
): boolean {
  const identity = workloadIdentity(client.workload);
  const records = [client.workload, index.workloads.byAddress(client.workload.network, client.ip)];
  return records.some(
    (record) =>
      record !== undefined &&
      workloadIdentity(record) === identity &&
      record.ips.includes(client.ip) &&
      isInstanceOf(index, waypoint, record, client.ip),
  );
}

function unknownWaypoint(detail: string): Unusable {
  return { kind: 'refuse', refusal: { code: 'CV-WAYPOINT-UNKNOWN', text: `unknown waypoint: ${detail}` } };
}
