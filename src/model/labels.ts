/** Who a connection is between, as metrics and the access log name it. */
import type { Baggage } from '../wire/baggage.ts';
import type { MeshIndex } from './mesh-index.ts';
import { workloadIdentity } from './spiffe.ts';
import type { PeerLabels, ServiceLabels } from './verdict.ts';
import { type Service, serviceKey, type Workload } from './workload.ts';

const NOBODY: PeerLabels = {
  pod: '',
  workload: '',
  canonicalName: '',
  canonicalRevision: '',
  app: '',
  namespace: '',
  identity: '',
  cluster: '',
  region: '',
  zone: '',
};

/** `identity` defaults to the one of the record; empty text = nothing was proved. */
export function workloadLabels(workload: Workload, identity: string = workloadIdentity(workload)): PeerLabels {
  return {
    pod: workload.name === '' ? workload.canonicalName : workload.name,
    workload: workload.workloadName,
    canonicalName: workload.canonicalName,
    canonicalRevision: workload.canonicalRevision,
    app: workload.canonicalName,
    namespace: workload.namespace,
    identity,
    cluster: workload.clusterId,
    region: workload.locality.region,
    zone: workload.locality.zone,
  };
}

/** What a peer says about itself: the application is its workload name, not its service name. */
export function baggageLabels(baggage: Baggage, identity: string): PeerLabels {
  return {
    pod: baggage.workloadName,
    workload: baggage.workloadName,
    canonicalName: baggage.serviceName,
    canonicalRevision: baggage.serviceVersion,
    app: baggage.workloadName,
    namespace: baggage.namespace,
    identity,
    cluster: baggage.cluster,
    region: baggage.region,
    zone: baggage.zone,
  };
}

/** Only a proved identity is known. */
export function identityLabels(identity: string): PeerLabels {
  return { ...NOBODY, identity };
}

export function serviceLabels({ hostname, name, namespace }: Service): ServiceLabels {
  return { hostname, name, namespace };
}

export function workloadBaggage(workload: Workload): Baggage {
  return {
    cluster: workload.clusterId,
    namespace: workload.namespace,
    workloadType: workload.workloadType,
    workloadName: workload.workloadName,
    serviceName: workload.canonicalName,
    serviceVersion: workload.canonicalRevision,
    region: workload.locality.region,
    zone: workload.locality.zone,
  };
}

/**
 * The service an inbound connection was probably meant for: the one named by the client, but only among those the pod
 * belongs to; else the first whose target port, or port of this endpoint, is the one connected to.
 */
export function guessService(
  index: MeshIndex,
  local: Workload,
  { port, forwardedHost }: { readonly port: number; readonly forwardedHost: string | undefined },
): Service | undefined {
  const services = index.servicesOf(local);
  const isTarget = (service: Service): boolean =>
    hasValue(local.services.get(serviceKey(service)), port) || hasValue(service.ports, port);
  return services.find(({ hostname }) => hostname === forwardedHost) ?? services.find(isTarget);
}

function hasValue(map: ReadonlyMap<number, number> | undefined, wanted: number): boolean {
  for (const value of map?.values() ?? []) if (value === wanted) return true;
  return false;
}
