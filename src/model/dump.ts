/** The mesh as `/config_dump` shows it: ztunnel's keys, order and omissions, so that its tools read it. */
import { inOrder } from '../base/in-order.ts';
import { formatCidr } from '../base/ip.ts';
import { referenceText } from './gateway-reference.ts';
import { endpointOf, type MeshIndex } from './mesh-index.ts';
import { type Match, type Policy, policyKey, type RejectedPolicy, type StringMatch } from './policy.ts';
import { type Endpoint, type GatewayAddress, type Service, serviceKey, type Workload } from './workload.ts';

/** Plain JSON. Fields that hold `undefined` are absent once serialized. */
type Json = string | number | boolean | undefined | readonly Json[] | { readonly [key: string]: Json };

/** Each list can be gone through once; its items are made then, so that a large mesh holds nobody up. */
export interface MeshDump {
  readonly policies: Iterable<Json>;
  readonly services: Iterable<Json>;
  readonly stagedServices: Json;
  readonly workloads: Iterable<Json>;
}

/** Of the records as they are now; endpoints of a service are those of the moment it is written. */
export function dumpMesh(index: MeshIndex): MeshDump {
  const { policies } = index;
  const all = [
    ...policies.accepted().map((policy) => ({ key: policyKey(policy), dump: () => dumpPolicy(policy) })),
    ...policies.rejected().map((policy) => ({ key: policyKey(policy), dump: () => dumpRejected(policy) })),
  ];
  const services = [...index.services.all()];
  const workloads = [...index.workloads.all()];
  return {
    policies: inOrder(all, ({ key }) => key).map(({ dump }) => dump()),
    services: inOrder(services, ({ hostname }) => hostname).map((service) => dumpService(index, service)),
    stagedServices: Object.fromEntries([...index.stagedEndpoints()].map(([key, list]) => [key, dumpEndpoints(list)])),
    workloads: inOrder(workloads, ({ uid }) => uid).map(dumpWorkload),
  };
}

function dumpWorkload(workload: Workload): { readonly [key: string]: Json } {
  const { region, zone, subzone } = workload.locality;
  const hasLocality = region !== '' || zone !== '' || subzone !== '';
  return {
    workloadIps: workload.ips,
    waypoint: workload.waypoint && dumpReference(workload.waypoint),
    networkGateway: workload.networkGateway && dumpReference(workload.networkGateway),
    protocol: workload.protocol,
    networkMode: workload.networkMode,
    uid: workload.uid,
    name: workload.name,
    namespace: workload.namespace,
    trustDomain: orAbsent(workload.trustDomain),
    serviceAccount: orAbsent(workload.serviceAccount),
    network: orAbsent(workload.network),
    workloadName: orAbsent(workload.workloadName),
    workloadType: workload.workloadType,
    canonicalName: orAbsent(workload.canonicalName),
    canonicalRevision: orAbsent(workload.canonicalRevision),
    hostname: orAbsent(workload.hostname),
    node: orAbsent(workload.node),
    nativeTunnel: workload.nativeTunnel || undefined,
    applicationTunnel: workload.applicationTunnel && { ...workload.applicationTunnel },
    authorizationPolicies: listOrAbsent(workload.authorizationPolicies),
    status: workload.status,
    clusterId: workload.clusterId,
    locality: hasLocality ? { region: orAbsent(region), zone: orAbsent(zone), subzone: orAbsent(subzone) } : undefined,
    services: listOrAbsent([...workload.services.keys()].toSorted(compare)),
    capacity: workload.capacity,
  };
}

function dumpService(index: MeshIndex, service: Service): { readonly [key: string]: Json } {
  const endpoints = index.endpoints(service).map((workload) => endpointOf(serviceKey(service), workload));
  const { mode, routingPreferences, healthPolicy } = service.loadBalancer;
  const isDefaultBalancer = mode === 'Standard' && routingPreferences.length === 0 && healthPolicy === 'OnlyHealthy';
  return {
    name: service.name,
    namespace: service.namespace,
    hostname: service.hostname,
    vips: service.vips.map(({ network, ip }) => `${network}/${ip}`),
    cidrVips: listOrAbsent(service.cidrVips.map(({ network, cidr }) => ({ network, cidr }))),
    ports: dumpPorts(service.ports),
    endpoints: dumpEndpoints(endpoints),
    subjectAltNames: listOrAbsent(service.subjectAltNames),
    waypoint: service.waypoint && dumpReference(service.waypoint),
    weightedWaypoints: listOrAbsent(
      service.weightedWaypoints.map(({ destination, weight }) => ({ destination: dumpReference(destination), weight })),
    ),
    loadBalancer: isDefaultBalancer ? undefined : { routingPreferences, mode, healthPolicy },
    ipFamilies: service.ipFamilies,
    canonical: service.canonical,
    visibility: service.visibility,
  };
}

function dumpPolicy(policy: Policy): { readonly [key: string]: Json } {
  const { name, namespace, scope, action, dryRun } = policy;
  return {
    name,
    namespace,
    scope,
    action,
    dryRun,
    rules: policy.rules.map((rule) => rule.map((c) => c.map(dumpMatch))),
  };
}

/** Our own addition: ztunnel has no such thing. It shows as a DENY without rules, and says why. */
function dumpRejected({ name, namespace, scope, why }: RejectedPolicy): { readonly [key: string]: Json } {
  return { name, namespace, scope, action: 'Deny', dryRun: false, rules: [], rejected: why };
}

function dumpMatch(match: Match): Json {
  return {
    namespaces: match.namespaces?.map(dumpStringMatch),
    notNamespaces: match.notNamespaces?.map(dumpStringMatch),
    serviceAccounts: match.serviceAccounts?.map((account) => ({ ...account })),
    notServiceAccounts: match.notServiceAccounts?.map((account) => ({ ...account })),
    principals: match.principals?.map(dumpStringMatch),
    notPrincipals: match.notPrincipals?.map(dumpStringMatch),
    sourceIps: match.sourceIps?.map(formatCidr),
    notSourceIps: match.notSourceIps?.map(formatCidr),
    destinationIps: match.destinationIps?.map(formatCidr),
    notDestinationIps: match.notDestinationIps?.map(formatCidr),
    destinationPorts: match.destinationPorts,
    notDestinationPorts: match.notDestinationPorts,
  };
}

function dumpStringMatch(match: StringMatch): Json {
  switch (match.kind) {
    case 'exact':
      return { Exact: match.value };
    case 'prefix':
      return { Prefix: match.value };
    case 'suffix':
      return { Suffix: match.value };
    case 'presence':
      return { Presence: [] };
  }
}

function dumpReference(reference: GatewayAddress): Json {
  return { destination: referenceText(reference), hboneMtlsPort: reference.hbonePort };
}

function dumpEndpoints(endpoints: readonly Endpoint[]): Json {
  return Object.fromEntries(
    endpoints.map(({ workloadUid, ports, status }) => [workloadUid, { workloadUid, port: dumpPorts(ports), status }]),
  );
}

function dumpPorts(ports: ReadonlyMap<number, number>): Json {
  return Object.fromEntries(ports);
}

function orAbsent(text: string): string | undefined {
  return text === '' ? undefined : text;
}

function listOrAbsent<T>(list: readonly T[]): readonly T[] | undefined {
  return list.length === 0 ? undefined : list;
}

function compare(a: string, b: string): number {
  if (a === b) return 0;
  return a < b ? -1 : 1;
}
