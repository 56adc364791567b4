/** A service as the mesh file and `/config_dump` spell it, with the endpoints it may list itself. */
import { parseSpiffeId } from '../model/spiffe.ts';
import {
  type LoadBalancer,
  type Service,
  STANDARD_BALANCER,
  serviceKey,
  type WeightedWaypoint,
} from '../model/workload.ts';
import { gatewayAddress, hostname, networkAddress, networkCidr, portMap, segment } from './decode-address.ts';
import {
  boolean,
  type Decoder,
  fieldsOf,
  integer,
  list,
  mappingOf,
  oneOf,
  type Path,
  text,
  textLike,
} from './decode-value.ts';

/** An endpoint written inside a service; the same thing as `services` of the workload it names. */
export interface ListedEndpoint {
  readonly path: Path;
  readonly serviceKey: string;
  readonly workloadUid: string;
  readonly ports: ReadonlyMap<number, number>;
  readonly status: 'Healthy' | 'Unhealthy' | undefined;
}

export interface DecodedService {
  readonly service: Service;
  readonly endpoints: readonly ListedEndpoint[];
}

export const service: Decoder<DecodedService> = (value, place) => {
  const fields = fieldsOf(value, place);
  if (fields === undefined) return undefined;
  const name = fields.required('name', text);
  const namespace = fields.required('namespace', segment);
  const host = fields.required('hostname', hostname);
  const vips = fields.required('vips', list(networkAddress));
  const ports = fields.required('ports', portMap(0));
  const waypoint = fields.optional('waypoint', gatewayAddress);
  const ipFamilies = fields.optional('ipFamilies', oneOf('IPv4', 'IPv6', 'Dual'));
  const endpoints = fields.or('endpoints', listedEndpoints, []);
  const optional = {
    cidrVips: fields.or('cidrVips', list(networkCidr), []),
    subjectAltNames: fields.or('subjectAltNames', list(subjectAltName), []),
    weightedWaypoints: fields.or('weightedWaypoints', list(weightedWaypoint), []),
    loadBalancer: fields.or('loadBalancer', loadBalancer, STANDARD_BALANCER),
    canonical: fields.or('canonical', boolean, false),
    visibility: fields.or('visibility', oneOf('Public', 'Namespace'), 'Public'),
    ...(waypoint && { waypoint }),
    ...(ipFamilies && { ipFamilies }),
  };
  fields.end();
  if (name === undefined || namespace === undefined || host === undefined) return undefined;
  if (vips === undefined || ports === undefined) return undefined;
  const decoded: Service = { name, namespace, hostname: host, vips, ports, ...optional };
  return {
    service: decoded,
    endpoints: endpoints.map((endpoint) => ({ ...endpoint, serviceKey: serviceKey(decoded) })),
  };
};

const subjectAltName = textLike(
  (value) => parseSpiffeId(value) !== undefined,
  'a SPIFFE ID of a workload',
  'write spiffe://<trust domain>/ns/<namespace>/sa/<service account>',
);

const loadBalancer: Decoder<LoadBalancer> = (value, place) => {
  const fields = fieldsOf(value, place);
  if (fields === undefined) return undefined;
  const scope = oneOf('Region', 'Zone', 'Subzone', 'Node', 'Cluster', 'Network');
  const decoded: LoadBalancer = {
    mode: fields.or('mode', oneOf('Standard', 'Strict', 'Failover', 'Passthrough'), 'Standard'),
    routingPreferences: fields.or('routingPreferences', list(scope), []),
    healthPolicy: fields.or('healthPolicy', oneOf('OnlyHealthy', 'AllowAll'), 'OnlyHealthy'),
  };
  fields.end();
  return decoded;
};

const weightedWaypoint: Decoder<WeightedWaypoint> = (value, place) => {
  const fields = fieldsOf(value, place);
  if (fields === undefined) return undefined;
  const destination = fields.required('destination', gatewayAddress);
  const weight = fields.required('weight', integer(0, 0xffff_ffff));
  fields.end();
  return destination === undefined || weight === undefined ? undefined : { destination, weight };
};

type Unkeyed = Omit<ListedEndpoint, 'serviceKey'>;

/** `uid: {workloadUid, port: {servicePort: targetPort}, status}`; the key is enough to name the workload. */
const listedEndpoints: Decoder<readonly Unkeyed[]> = (value, place) => {
  const mapping = mappingOf(value, place);
  if (mapping === undefined) return undefined;
  return [...mapping].flatMap(([key, item]) => {
    const uid = text(key, place.atKey(key));
    const endpoint = uid === undefined ? undefined : listedEndpoint(uid)(item, place.at(key));
    return endpoint === undefined ? [] : [endpoint];
  });
};

function listedEndpoint(uid: string): Decoder<Unkeyed> {
  return (value, place) => {
    const fields = fieldsOf(value, place);
    if (fields === undefined) return undefined;
    const workloadUid = fields.or('workloadUid', text, uid);
    const ports = fields.or('port', portMap(1), new Map<number, number>());
    const status = fields.optional('status', oneOf('Healthy', 'Unhealthy'));
    fields.end();
    return { path: place.path, workloadUid, ports, status };
  };
}
