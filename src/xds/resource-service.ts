/** `istio.workload.Service` as a record. */
import { PORTS } from '../model/ports.ts';
import { type GatewayAddress, type LoadBalancer, type Service, STANDARD_BALANCER } from '../model/workload.ts';
import {
  IPFamilies,
  type LoadBalancing,
  LoadBalancing_HealthPolicy,
  LoadBalancing_Mode,
  LoadBalancing_Scope,
  Service_Visibility,
  type Service as ServiceMessage,
} from '../wire/pb/workload_pb.ts';
import {
  gatewayAddress,
  known,
  list,
  networkAddress,
  portMap,
  refuse,
  required,
  segment,
  text,
} from './resource-value.ts';

const FAMILIES: Readonly<Record<number, Service['ipFamilies'] | 'Automatic'>> = {
  [IPFamilies.AUTOMATIC]: 'Automatic',
  [IPFamilies.IPV4_ONLY]: 'IPv4',
  [IPFamilies.IPV6_ONLY]: 'IPv6',
  [IPFamilies.DUAL]: 'Dual',
};
const MODES: Readonly<Record<number, LoadBalancer['mode']>> = {
  [LoadBalancing_Mode.UNSPECIFIED_MODE]: 'Standard',
  [LoadBalancing_Mode.STRICT]: 'Strict',
  [LoadBalancing_Mode.FAILOVER]: 'Failover',
  [LoadBalancing_Mode.PASSTHROUGH]: 'Passthrough',
};
/** Without the unspecified one, which is refused. */
const SCOPES: Readonly<Record<number, LoadBalancer['routingPreferences'][number]>> = {
  [LoadBalancing_Scope.REGION]: 'Region',
  [LoadBalancing_Scope.ZONE]: 'Zone',
  [LoadBalancing_Scope.SUBZONE]: 'Subzone',
  [LoadBalancing_Scope.NODE]: 'Node',
  [LoadBalancing_Scope.CLUSTER]: 'Cluster',
  [LoadBalancing_Scope.NETWORK]: 'Network',
};
const HEALTH: Readonly<Record<number, LoadBalancer['healthPolicy']>> = {
  [LoadBalancing_HealthPolicy.ONLY_HEALTHY]: 'OnlyHealthy',
  [LoadBalancing_HealthPolicy.ALLOW_ALL]: 'AllowAll',
};

/** A canary without an address, as istiod makes it of a Gateway that has no usable one: its share is refused, not bypassed. */
const NOWHERE: GatewayAddress = { kind: 'hostname', namespace: '', hostname: '', hbonePort: PORTS.hbone };

export function serviceRecord(message: ServiceMessage): Service {
  const addresses = list(message.addresses, 'addresses', networkAddress);
  const ipFamilies = known(FAMILIES, message.ipFamilies, 'ip_families');
  return {
    name: text(message.name),
    namespace: segment(message.namespace) || refuse('namespace', 'is empty'),
    hostname: hostname(message.hostname),
    vips: addresses.flatMap((address) => ('vip' in address ? [address.vip] : [])),
    cidrVips: addresses.flatMap((address) => ('cidr' in address ? [address.cidr] : [])),
    ports: portMap(message.ports, 'ports', true),
    // Names of other kinds are for waypoints: who compares SPIFFE IDs leaves them out.
    subjectAltNames: message.subjectAltNames,
    weightedWaypoints: list(message.weightedWaypoints, 'weighted_waypoints', ({ destination, weight }, field) => ({
      destination: destination === undefined ? NOWHERE : gatewayAddress(destination, field),
      weight,
    })),
    loadBalancer: message.loadBalancing === undefined ? STANDARD_BALANCER : loadBalancer(message.loadBalancing),
    canonical: message.canonical,
    // The reference reads numbers it does not know as public, and a control plane may count on that.
    visibility: message.visibility === Service_Visibility.NAMESPACE ? 'Namespace' : 'Public',
    ...(message.waypoint && { waypoint: gatewayAddress(message.waypoint, 'waypoint') }),
    ...(ipFamilies !== 'Automatic' && ipFamilies !== undefined && { ipFamilies }),
  };
}

/** A slash would make another key of it; a wildcard is a name like any other. */
function hostname(value: string): string {
  return value.includes('/') ? refuse('hostname', 'holds a slash') : required(value, 'hostname');
}

function loadBalancer({ mode, routingPreference, healthPolicy }: LoadBalancing): LoadBalancer {
  return {
    mode: known(MODES, mode, 'load_balancing.mode'),
    routingPreferences: list(routingPreference, 'load_balancing.routing_preference', (scope, field) =>
      known(SCOPES, scope, field),
    ),
    healthPolicy: known(HEALTH, healthPolicy, 'load_balancing.health_policy'),
  };
}
