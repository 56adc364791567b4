/** Records of the big mesh as the messages of a control plane. Only what that mesh has is written. */
import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { ipBytes } from '../../../src/base/ip.ts';
import type { Match, Policy, StringMatch } from '../../../src/model/policy.ts';
import type { GatewayAddress, LoadBalancer, Service, Workload } from '../../../src/model/workload.ts';
import {
  type Authorization,
  AuthorizationSchema,
  Action as WireAction,
  Scope as WireScope,
} from '../../../src/wire/pb/authorization_pb.ts';
import {
  type GatewayAddressSchema,
  LoadBalancing_HealthPolicy,
  LoadBalancing_Mode,
  LoadBalancing_Scope,
  ServiceSchema,
  TunnelProtocol,
  type Service as WireService,
  type Workload as WireWorkload,
  WorkloadSchema,
  WorkloadStatus,
} from '../../../src/wire/pb/workload_pb.ts';

export function workloadMessage(from: Workload): WireWorkload {
  const { ips, services, authorizationPolicies, locality, waypoint, status, protocol } = from;
  return create(WorkloadSchema, {
    uid: from.uid,
    name: from.name,
    namespace: from.namespace,
    addresses: ips.map(bytesOf),
    network: from.network,
    tunnelProtocol: protocol === 'HBONE' ? TunnelProtocol.HBONE : TunnelProtocol.NONE,
    trustDomain: from.trustDomain,
    serviceAccount: from.serviceAccount,
    node: from.node,
    canonicalName: from.canonicalName,
    canonicalRevision: from.canonicalRevision,
    workloadName: from.workloadName,
    services: Object.fromEntries([...services].map(([key, ports]) => [key, { ports: portsOf(ports) }])),
    authorizationPolicies: [...authorizationPolicies],
    status: status === 'Healthy' ? WorkloadStatus.HEALTHY : WorkloadStatus.UNHEALTHY,
    clusterId: from.clusterId,
    locality: { ...locality },
    ...(waypoint && { waypoint: gatewayOf(waypoint) }),
  });
}

export function serviceMessage(from: Service): WireService {
  const { vips, ports, waypoint, loadBalancer } = from;
  return create(ServiceSchema, {
    name: from.name,
    namespace: from.namespace,
    hostname: from.hostname,
    addresses: vips.map(({ network, ip }) => ({ network, address: bytesOf(ip) })),
    ports: portsOf(ports),
    loadBalancing: balancingOf(loadBalancer),
    canonical: from.canonical,
    ...(waypoint && { waypoint: gatewayOf(waypoint) }),
  });
}

export function policyMessage({ name, namespace, scope, action, rules }: Policy): Authorization {
  return create(AuthorizationSchema, {
    name,
    namespace,
    scope: { Global: WireScope.GLOBAL, Namespace: WireScope.NAMESPACE, WorkloadSelector: WireScope.WORKLOAD_SELECTOR }[
      scope
    ],
    action: action === 'Allow' ? WireAction.ALLOW : WireAction.DENY,
    groups: rules.map((rule) => ({ rules: rule.map((clause) => ({ matches: clause.map(matchOf) })) })),
  });
}

function matchOf({ namespaces = [], principals = [], destinationPorts = [] }: Match) {
  return {
    namespaces: namespaces.map(stringMatchOf),
    principals: principals.map(stringMatchOf),
    destinationPorts: [...destinationPorts],
  };
}

function stringMatchOf(match: StringMatch) {
  if (match.kind === 'presence') return { matchType: { case: 'presence' as const, value: {} } };
  return { matchType: { case: match.kind, value: match.value } };
}

function balancingOf({ mode, routingPreferences }: LoadBalancer) {
  const modes = {
    Standard: LoadBalancing_Mode.UNSPECIFIED_MODE,
    Strict: LoadBalancing_Mode.STRICT,
    Failover: LoadBalancing_Mode.FAILOVER,
    Passthrough: LoadBalancing_Mode.PASSTHROUGH,
  };
  const scopes = {
    Region: LoadBalancing_Scope.REGION,
    Zone: LoadBalancing_Scope.ZONE,
    Subzone: LoadBalancing_Scope.SUBZONE,
    Node: LoadBalancing_Scope.NODE,
    Cluster: LoadBalancing_Scope.CLUSTER,
    Network: LoadBalancing_Scope.NETWORK,
  };
  return {
    mode: modes[mode],
    routingPreference: routingPreferences.map((scope) => scopes[scope]),
    healthPolicy: LoadBalancing_HealthPolicy.ONLY_HEALTHY,
  };
}

function gatewayOf(from: GatewayAddress): MessageInitShape<typeof GatewayAddressSchema> {
  if (from.kind === 'address') throw new Error('the big mesh names its waypoints');
  const { namespace, hostname, hbonePort } = from;
  return { destination: { case: 'hostname', value: { namespace, hostname } }, hboneMtlsPort: hbonePort };
}

function portsOf(ports: ReadonlyMap<number, number>) {
  return [...ports].map(([servicePort, targetPort]) => ({ servicePort, targetPort }));
}

function bytesOf(ip: string): Uint8Array<ArrayBuffer> {
  return new Uint8Array(ipBytes(ip) ?? []);
}
