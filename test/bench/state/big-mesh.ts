/** A mesh of the size the targets name, with the shape real ones have: a few large services, many small ones. */
import type { Policy } from '../../../src/model/policy.ts';
import type { GatewayAddress, LoadBalancer, Service, Workload } from '../../../src/model/workload.ts';

export interface MeshSize {
  readonly workloads: number;
  readonly services: number;
  readonly policies: number;
}

export const FULL_SIZE: MeshSize = { workloads: 100_000, services: 10_000, policies: 2_000 };
export const QUICK_SIZE: MeshSize = { workloads: 10_000, services: 1_000, policies: 200 };

/** Members of the large services; everybody else is spread evenly over the small ones. */
const LARGE_SERVICES = [1_000, 1_000, 500, 500, 200, 200, 200, 200, 200, 200];
const SERVICES_PER_NAMESPACE = 20;
const PODS_PER_NODE = 50;
/** The node whose agent the bench is. */
export const OWN_NODE = nodeName(0);
export const NETWORK = 'network-1';

/** Service port → target port. */
const PORTS: readonly (readonly [number, number])[] = [
  [80, 8_080],
  [9_090, 9_090],
];
/** Of services that are waypoints. */
const HBONE = [15_008, 15_008] as const;
const REGIONS = 2;
const ZONES_PER_REGION = 3;

/** One record of each kind by its number, with strings of its own, as a decoder makes them. */
export class BigMesh {
  readonly size: MeshSize;
  /** First member of each large service; the last entry is the first member of the small ones. */
  readonly #largeStarts: readonly number[];

  constructor(size: MeshSize) {
    this.size = size;
    let next = 0;
    const starts = [0];
    for (const members of LARGE_SERVICES) starts.push((next += Math.floor((members * size.workloads) / 100_000)));
    this.#largeStarts = starts;
  }

  workload(n: number): Workload {
    const own = this.serviceOf(n);
    const namespace = namespaceOf(own);
    const app = `${serviceName(own)}-api`;
    const name = `${app}-${hash(own, 10)}-${hash(n, 5)}`;
    // Spread over the nodes, so that each node holds members of many services.
    const node = (n * 7_919) % Math.ceil(this.size.workloads / PODS_PER_NODE);
    const zone = node % (REGIONS * ZONES_PER_REGION);
    const region = `region-${Math.floor(zone / ZONES_PER_REGION)}`;
    return {
      uid: decoded(`Kubernetes//Pod/${namespace}/${name}`),
      name: decoded(name),
      namespace: decoded(namespace),
      trustDomain: decoded('cluster.local'),
      serviceAccount: decoded(app),
      network: decoded(NETWORK),
      ips: [decoded(podIpOf(n))],
      hostname: '',
      node: decoded(nodeName(node)),
      clusterId: decoded('Kubernetes'),
      protocol: 'HBONE',
      networkMode: 'Standard',
      nativeTunnel: false,
      workloadName: decoded(app),
      workloadType: 'deployment',
      canonicalName: decoded(app),
      canonicalRevision: decoded(own % 3 === 0 ? 'v2' : 'v1'),
      locality: { region: decoded(region), zone: decoded(`${region}-${zone % ZONES_PER_REGION}`), subzone: '' },
      status: n % 50 === 49 ? 'Unhealthy' : 'Healthy',
      capacity: 1,
      ...(own % 40 === 7 && { waypoint: waypointOf(own) }),
      authorizationPolicies:
        own % 8 === 0 ? ACTIONS.map((action) => decoded(`${namespace}/${selectedName(action)}`)) : [],
      services: new Map([[decoded(serviceKeyOf(own)), new Map(PORTS)]]),
    };
  }

  service(n: number): Service {
    const namespace = namespaceOf(n);
    return {
      name: decoded(serviceName(n)),
      namespace: decoded(namespace),
      hostname: decoded(hostnameOf(n)),
      vips: [{ network: decoded(NETWORK), ip: decoded(vipOf(n)) }],
      cidrVips: [],
      ports: new Map(n % SERVICES_PER_NAMESPACE === 0 ? [...PORTS, HBONE] : PORTS),
      subjectAltNames: [],
      ...(n % 10 === 3 && { waypoint: waypointOf(n) }),
      weightedWaypoints: [],
      loadBalancer: balancerOf(n),
      canonical: true,
      visibility: 'Public',
    };
  }

  /** In turn: what a namespace allows, what it denies, and one policy of each kind that workloads select by key. */
  policy(n: number): Policy {
    const namespaces = Math.ceil(this.size.services / SERVICES_PER_NAMESPACE);
    const kind = Math.floor(n / namespaces) % 4;
    const isSelected = kind > 1;
    const action = kind % 2 === 0 ? 'Allow' : 'Deny';
    const other = decoded(`team-${(n * 7) % namespaces}`);
    return {
      name: decoded(isSelected ? selectedName(action) : `${action.toLowerCase()}-${n}`),
      namespace: decoded(`team-${n % namespaces}`),
      scope: isSelected ? 'WorkloadSelector' : 'Namespace',
      action,
      dryRun: false,
      rules: [
        action === 'Allow'
          ? [[{ principals: [{ kind: 'prefix', value: decoded('cluster.local/ns/team-') }] }]]
          : [[{ namespaces: [{ kind: 'exact', value: other }], destinationPorts: [9_090] }]],
      ],
    };
  }

  *workloads(): Generator<Workload> {
    for (let n = 0; n < this.size.workloads; n++) yield this.workload(n);
  }

  *services(): Generator<Service> {
    for (let n = 0; n < this.size.services; n++) yield this.service(n);
  }

  *policies(): Generator<Policy> {
    for (let n = 0; n < this.size.policies; n++) yield this.policy(n);
  }

  /** Number of the service that workload `n` is a member of. */
  serviceOf(n: number): number {
    const large = this.#largeStarts.findIndex((start) => start > n) - 1;
    if (large >= 0) return large;
    return LARGE_SERVICES.length + (n % (this.size.services - LARGE_SERVICES.length));
  }
}

export function podIpOf(workload: number): string {
  return `10.${(workload >> 16) & 255}.${(workload >> 8) & 255}.${workload & 255}`;
}

export function vipOf(service: number): string {
  return `172.16.${(service >> 8) & 255}.${service & 255}`;
}

const ACTIONS: readonly Policy['action'][] = ['Allow', 'Deny'];

function selectedName(action: Policy['action']): string {
  return `selected-${action.toLowerCase()}`;
}

function balancerOf(n: number): LoadBalancer {
  switch (n % 4) {
    case 1:
      return { mode: 'Failover', routingPreferences: ['Network', 'Region', 'Zone'], healthPolicy: 'OnlyHealthy' };
    case 2:
      return { mode: 'Strict', routingPreferences: ['Region'], healthPolicy: 'OnlyHealthy' };
    default:
      return { mode: 'Standard', routingPreferences: [], healthPolicy: 'OnlyHealthy' };
  }
}

/** Each waypoint is the first service of its namespace. */
function waypointOf(service: number): GatewayAddress {
  const first = service - (service % SERVICES_PER_NAMESPACE);
  return {
    kind: 'hostname',
    namespace: decoded(namespaceOf(first)),
    hostname: decoded(hostnameOf(first)),
    hbonePort: 15_008,
  };
}

function nodeName(n: number): string {
  return `ip-10-100-${n >> 8}-${n & 255}.eu-central-1.compute.internal`;
}

function serviceName(n: number): string {
  return `orders-${n}`;
}

function namespaceOf(service: number): string {
  return `team-${Math.floor(service / SERVICES_PER_NAMESPACE)}`;
}

function hostnameOf(service: number): string {
  return `${serviceName(service)}.${namespaceOf(service)}.svc.cluster.local`;
}

function serviceKeyOf(service: number): string {
  return `${namespaceOf(service)}/${hostnameOf(service)}`;
}

/** Text of the length Kubernetes' name suffixes have. */
function hash(n: number, chars: number): string {
  return (Math.imul(n + 1, 2_654_435_761) >>> 0).toString(36).padStart(chars, 'x').slice(0, chars);
}

/** A string of its own, as one that was just read from the wire. */
function decoded(text: string): string {
  return Buffer.from(text, 'latin1').toString('latin1');
}
