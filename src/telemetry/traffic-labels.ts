/** The label set of the traffic metrics: names, order and rules as in ztunnel. */
import type { ConnectionLabels, PeerLabels } from '../model/verdict.ts';

/** Longest label value, UTF-16 units. Values come from the mesh state, a certificate or an authenticated peer's baggage. */
const MAX_LABEL_CHARS = 512;

/** In emission order; `response_flags` is filled in per sample. */
const TRAFFIC_LABELS = [
  'reporter',
  'source_workload',
  'source_canonical_service',
  'source_canonical_revision',
  'source_workload_namespace',
  'source_principal',
  'source_app',
  'source_version',
  'source_cluster',
  'destination_service',
  'destination_service_namespace',
  'destination_service_name',
  'destination_workload',
  'destination_canonical_service',
  'destination_canonical_revision',
  'destination_workload_namespace',
  'destination_principal',
  'destination_app',
  'destination_version',
  'destination_cluster',
  'request_protocol',
  'response_flags',
  'connection_security_policy',
  'source_region',
  'source_zone',
  'destination_region',
  'destination_zone',
] as const;

export type TrafficLabels = Readonly<Record<(typeof TRAFFIC_LABELS)[number], string>>;

/** The labels of one connection, `response_flags` being `-`. */
export function trafficLabels({ reporter, source, destination, ...rest }: ConnectionLabels): TrafficLabels {
  const service = rest.destinationService;
  return {
    reporter,
    ...sourceLabels(source, rest.securityPolicy !== 'unknown'),
    destination_service: known(service?.hostname),
    destination_service_namespace: known(service?.namespace),
    destination_service_name: known(service?.name),
    ...destinationLabels(destination),
    request_protocol: 'tcp',
    response_flags: '-',
    connection_security_policy: rest.securityPolicy,
    source_region: known(source?.region),
    source_zone: known(source?.zone),
    destination_region: known(destination?.region),
    destination_zone: known(destination?.zone),
  };
}

/** The same labels with every name unknown: where connections go when no more label sets are kept. */
export function anonymousLabels(labels: TrafficLabels): TrafficLabels {
  const { reporter, connection_security_policy: policy, request_protocol: protocol, response_flags: flags } = labels;
  const unknown = Object.fromEntries(TRAFFIC_LABELS.map((name) => [name, 'unknown'])) as TrafficLabels;
  const known = { reporter, request_protocol: protocol, response_flags: flags, connection_security_policy: policy };
  return { ...unknown, ...known };
}

/** A cheap text that is equal for equal label sets; made once per connection. */
export function labelKey(labels: ConnectionLabels): string {
  const service = labels.destinationService;
  const head = `${labels.reporter}\n${labels.securityPolicy}\n${service?.hostname}\n${service?.name}\n${service?.namespace}`;
  return `${head}\n${peerKey(labels.source)}\n${peerKey(labels.destination)}`;
}

function peerKey(peer: PeerLabels | undefined): string {
  if (peer === undefined) return '';
  const owner = `${peer.workload}\n${peer.canonicalName}\n${peer.canonicalRevision}\n${peer.app}\n${peer.namespace}`;
  return `${owner}\n${peer.identity}\n${peer.cluster}\n${peer.region}\n${peer.zone}`;
}

/** A plaintext source has no identity, whatever its workload record says. */
export function sourceLabels(peer: PeerLabels | undefined, isProven: boolean) {
  return {
    source_workload: known(peer?.workload),
    source_canonical_service: known(peer?.canonicalName),
    source_canonical_revision: known(peer?.canonicalRevision),
    source_workload_namespace: known(peer?.namespace),
    source_principal: isProven ? known(peer?.identity) : 'unknown',
    source_app: known(peer?.app),
    source_version: known(peer?.canonicalRevision),
    source_cluster: known(peer?.cluster),
  };
}

function destinationLabels(peer: PeerLabels | undefined) {
  return {
    destination_workload: known(peer?.workload),
    destination_canonical_service: known(peer?.canonicalName),
    destination_canonical_revision: known(peer?.canonicalRevision),
    destination_workload_namespace: known(peer?.namespace),
    destination_principal: known(peer?.identity),
    destination_app: known(peer?.app),
    destination_version: known(peer?.canonicalRevision),
    destination_cluster: known(peer?.cluster),
  };
}

/** A label value: absent is `unknown`, too long is cut. */
export function known(value: string | undefined): string {
  return value === undefined || value === '' ? 'unknown' : value.slice(0, MAX_LABEL_CHARS);
}
