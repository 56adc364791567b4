/** A workload as the mesh file and `/config_dump` spell it. */
import { type ApplicationTunnel, type Locality, NO_LOCALITY, type Workload } from '../model/workload.ts';
import { gatewayAddress, hostname, ip, port, portMap, segment, serviceReference } from './decode-address.ts';
import {
  boolean,
  type Decoder,
  type Fields,
  fieldsOf,
  integer,
  list,
  mappingOf,
  oneOf,
  text,
  textLike,
} from './decode-value.ts';

const uid = textLike(
  (value) => /^[\x21-\x7e]+$/.test(value),
  'a UID',
  'write cluster/group/kind/namespace/name without spaces',
);

export const workload: Decoder<Workload> = (value, place) => {
  const fields = fieldsOf(value, place);
  if (fields === undefined) return undefined;
  const ips = fields.required('workloadIps', list(ip));
  const namespace = fields.required('namespace', segment);
  const services = fields.required('services', memberships);
  const identity = identityFields(fields);
  const routing = routingFields(fields);
  const described = descriptionFields(fields);
  const name = fields.or('name', text, '');
  const explicitUid = fields.optional('uid', uid);
  fields.end();
  if (ips === undefined || namespace === undefined || services === undefined) return undefined;
  // Without a UID the pod is named by what it must have anyway; two unnamed ones collide and are refused as duplicates.
  const own = explicitUid ?? `${described.clusterId}//Pod/${namespace}/${name === '' ? (ips[0] ?? '') : name}`;
  return { uid: own, name, namespace, ips, services, ...identity, ...routing, ...described };
};

function identityFields(fields: Fields): Pick<Workload, 'trustDomain' | 'serviceAccount' | 'authorizationPolicies'> {
  return {
    trustDomain: fields.or('trustDomain', segment, 'cluster.local'),
    serviceAccount: fields.or('serviceAccount', segment, 'default'),
    authorizationPolicies: fields.or('authorizationPolicies', list(policyReference), []),
  };
}

type RoutingField =
  | 'network'
  | 'hostname'
  | 'protocol'
  | 'networkMode'
  | 'nativeTunnel'
  | 'status'
  | 'capacity'
  | 'waypoint'
  | 'networkGateway'
  | 'applicationTunnel';

function routingFields(fields: Fields): Pick<Workload, RoutingField> {
  const waypoint = fields.optional('waypoint', gatewayAddress);
  const networkGateway = fields.optional('networkGateway', gatewayAddress);
  const tunnel = fields.optional('applicationTunnel', applicationTunnel);
  return {
    network: fields.or('network', text, ''),
    hostname: fields.or('hostname', emptyOrHostname, ''),
    protocol: fields.or('protocol', oneOf('TCP', 'HBONE'), 'TCP'),
    networkMode: fields.or('networkMode', oneOf('Standard', 'HostNetwork'), 'Standard'),
    nativeTunnel: fields.or('nativeTunnel', boolean, false),
    status: fields.or('status', oneOf('Healthy', 'Unhealthy'), 'Healthy'),
    capacity: fields.or('capacity', integer(0, 0xffff_ffff), 1),
    ...(waypoint && { waypoint }),
    ...(networkGateway && { networkGateway }),
    ...(tunnel && { applicationTunnel: tunnel }),
  };
}

type DescriptionField =
  | 'node'
  | 'clusterId'
  | 'workloadName'
  | 'workloadType'
  | 'canonicalName'
  | 'canonicalRevision'
  | 'locality';

function descriptionFields(fields: Fields): Pick<Workload, DescriptionField> {
  return {
    node: fields.or('node', text, ''),
    clusterId: fields.or('clusterId', text, 'Kubernetes'),
    workloadName: fields.or('workloadName', text, ''),
    workloadType: fields.or('workloadType', oneOf('deployment', 'cronjob', 'pod', 'job'), 'deployment'),
    canonicalName: fields.or('canonicalName', text, ''),
    canonicalRevision: fields.or('canonicalRevision', text, ''),
    locality: fields.or('locality', locality, NO_LOCALITY),
  };
}

const emptyOrHostname: Decoder<string> = (value, place) => (value === '' ? '' : hostname(value, place));

const policyReference = textLike(
  (value) => /^[^/]*\/[^/]+$/.test(value),
  'a policy key',
  'write namespace/name of the policy',
);

const locality: Decoder<Locality> = (value, place) => {
  const fields = fieldsOf(value, place);
  if (fields === undefined) return undefined;
  const decoded = {
    region: fields.or('region', text, ''),
    zone: fields.or('zone', text, ''),
    subzone: fields.or('subzone', text, ''),
  };
  fields.end();
  return decoded;
};

const applicationTunnel: Decoder<ApplicationTunnel> = (value, place) => {
  const fields = fieldsOf(value, place);
  if (fields === undefined) return undefined;
  const protocol = fields.required('protocol', oneOf('NONE', 'PROXY'));
  const tunnelPort = fields.optional('port', port);
  fields.end();
  return protocol && { protocol, ...(tunnelPort !== undefined && { port: tunnelPort }) };
};

/** `"namespace/hostname": {servicePort: targetPort}`: the workload is an endpoint of each. */
const memberships: Decoder<Workload['services']> = (value, place) => {
  const mapping = mappingOf(value, place);
  if (mapping === undefined) return undefined;
  const services = new Map<string, ReadonlyMap<number, number>>();
  const endpointPorts = portMap(1);
  for (const [key, item] of mapping) {
    const service = serviceReference(key, place.atKey(key));
    const ports = endpointPorts(item, place.at(key));
    if (service !== undefined && ports !== undefined) services.set(service, ports);
  }
  return services;
};
