/** Resolves what a waypoint or network-gateway reference points at: a service by VIP or name, or a workload. */
import type { Random } from '../base/random.ts';
import { selectEndpoint, type Upstream } from './load-balance.ts';
import type { MeshIndex } from './mesh-index.ts';
import type { GatewayAddress, Service, Workload } from './workload.ts';

/** A service or a workload; neither when nothing is known by that address or name. */
interface Referent {
  readonly service?: Service;
  readonly workload?: Workload;
}

/**
 * One instance behind `reference`, on its HBONE port; `undefined` when it is unknown or has nobody who can serve.
 * Visibility is not applied: references are made by the control plane, not by clients.
 */
export function resolveReference(
  index: MeshIndex,
  { reference, source }: { readonly reference: GatewayAddress; readonly source: Workload },
  random: Random,
): Upstream | undefined {
  const { service, workload } = referent(index, reference);
  const port = reference.hbonePort;
  if (service !== undefined) return selectEndpoint(index, { source, service, port, isWaypoint: true }, random);
  return workload && { workload, port };
}

/** True when `workload`, at its address `ip`, is one of the instances behind `reference`. */
export function isInstanceOf(index: MeshIndex, reference: GatewayAddress, workload: Workload, ip: string): boolean {
  const found = referent(index, reference);
  if (found.service !== undefined) return index.isMember(found.service, workload);
  return found.workload?.ips.includes(ip) === true;
}

/** `network/ip` or `namespace/hostname`. */
export function referenceText(reference: GatewayAddress): string {
  return reference.kind === 'address'
    ? `${reference.network}/${reference.ip}`
    : `${reference.namespace}/${reference.hostname}`;
}

/** True when `reference` names something the mesh knows. */
export function isKnownReference(index: MeshIndex, reference: GatewayAddress): boolean {
  const { service, workload } = referent(index, reference);
  return service !== undefined || workload !== undefined;
}

/** What to ask the control plane for when nothing is known behind `reference`; `undefined` when something is. */
export function missingKey(index: MeshIndex, reference: GatewayAddress): string | undefined {
  return isKnownReference(index, reference) ? undefined : referenceText(reference);
}

function referent(index: MeshIndex, reference: GatewayAddress): Referent {
  const service =
    reference.kind === 'address'
      ? index.services.byVip(reference.network, reference.ip)
      : index.services.byKey(`${reference.namespace}/${reference.hostname}`);
  if (service !== undefined) return { service };
  const workload =
    reference.kind === 'address'
      ? index.workloads.byAddress(reference.network, reference.ip)
      : index.workloads.byHostname(reference.namespace, reference.hostname);
  return workload === undefined ? {} : { workload };
}
