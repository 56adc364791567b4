/** `istio.workload.Workload` as a record. */
import { type ApplicationTunnel, type Locality, NO_LOCALITY, type Workload } from '../model/workload.ts';
import { isHostname } from '../wire/hbone.ts';
import {
  ApplicationTunnel_Protocol,
  type ApplicationTunnel as ApplicationTunnelMessage,
  type Locality as LocalityMessage,
  NetworkMode,
  TunnelProtocol,
  type Workload as WorkloadMessage,
  WorkloadStatus,
  WorkloadType,
} from '../wire/pb/workload_pb.ts';
import { gatewayAddress, ip, known, list, portMap, reference, required, segment, text } from './resource-value.ts';

/** HBONE's predecessor is not spoken here: whoever needs it cannot be reached, and is refused instead of sent plaintext. */
const PROTOCOLS = { [TunnelProtocol.NONE]: 'TCP', [TunnelProtocol.HBONE]: 'HBONE' } as const;
const MODES = { [NetworkMode.STANDARD]: 'Standard', [NetworkMode.HOST_NETWORK]: 'HostNetwork' } as const;
const STATUSES = { [WorkloadStatus.HEALTHY]: 'Healthy', [WorkloadStatus.UNHEALTHY]: 'Unhealthy' } as const;
const TUNNELS = { [ApplicationTunnel_Protocol.NONE]: 'NONE', [ApplicationTunnel_Protocol.PROXY]: 'PROXY' } as const;
const TYPES: Readonly<Record<number, Workload['workloadType']>> = {
  [WorkloadType.DEPLOYMENT]: 'deployment',
  [WorkloadType.CRONJOB]: 'cronjob',
  [WorkloadType.POD]: 'pod',
  [WorkloadType.JOB]: 'job',
};

export function workloadRecord(message: WorkloadMessage): Workload {
  return { ...identity(message), ...routing(message), ...description(message) };
}

function identity(message: WorkloadMessage) {
  return {
    uid: required(message.uid, 'uid'),
    name: text(message.name),
    namespace: segment(message.namespace),
    trustDomain: segment(message.trustDomain) || 'cluster.local',
    serviceAccount: segment(message.serviceAccount) || 'default',
    authorizationPolicies: message.authorizationPolicies,
  };
}

function routing(message: WorkloadMessage) {
  return {
    network: text(message.network),
    ips: list(message.addresses, 'addresses', ip),
    // What is no host name could only be resolved to something nobody meant.
    hostname: isHostname(message.hostname) ? message.hostname : '',
    protocol: known(PROTOCOLS, message.tunnelProtocol, 'tunnel_protocol'),
    networkMode: known(MODES, message.networkMode, 'network_mode'),
    nativeTunnel: message.nativeTunnel,
    status: known(STATUSES, message.status, 'status'),
    capacity: message.capacity ?? 1,
    services: memberships(message),
    ...(message.waypoint && { waypoint: gatewayAddress(message.waypoint, 'waypoint') }),
    ...(message.networkGateway && { networkGateway: gatewayAddress(message.networkGateway, 'network_gateway') }),
    ...(message.applicationTunnel && { applicationTunnel: applicationTunnel(message.applicationTunnel) }),
  };
}

function description(message: WorkloadMessage) {
  return {
    node: text(message.node),
    clusterId: text(message.clusterId) || 'Kubernetes',
    workloadName: text(message.workloadName),
    // Named in metrics only: a kind of owner that is new must not cost the workload.
    workloadType: TYPES[message.workloadType] ?? 'deployment',
    canonicalName: text(message.canonicalName),
    canonicalRevision: text(message.canonicalRevision),
    locality: message.locality === undefined ? NO_LOCALITY : locality(message.locality),
  };
}

function memberships({ services }: WorkloadMessage): Workload['services'] {
  const keys = list(Object.keys(services), 'services', reference);
  return new Map(keys.map((key) => [key, portMap(services[key]?.ports ?? [], `services[${key}]`, false)]));
}

function locality({ region, zone, subzone }: LocalityMessage): Locality {
  return {
    region: text(region),
    zone: text(zone),
    subzone: text(subzone),
  };
}

function applicationTunnel({ protocol, port }: ApplicationTunnelMessage): ApplicationTunnel {
  return {
    protocol: known(TUNNELS, protocol, 'application_tunnel.protocol'),
    // From an annotation of a Gateway, whatever number is written there: who would be led to it refuses one that cannot be.
    ...(port !== 0 && { port }),
  };
}
