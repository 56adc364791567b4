/** Chooses one endpoint of a service and its target port (datapath.md §4.4): health, scopes, failover, capacity weights. */
import { ipFamily } from '../base/ip.ts';
import type { Random } from '../base/random.ts';
import { isOpen, type MeshIndex } from './mesh-index.ts';
import { type LoadBalancer, type Scope, type Service, serviceKey, type Workload } from './workload.ts';

export interface EndpointRequest {
  /** The workload that connects; scopes compare with it. */
  readonly source: Workload;
  readonly service: Service;
  /** Service port. */
  readonly port: number;
  /** A waypoint instance may be reached on a port its service does not list, when it has an application tunnel. */
  readonly isWaypoint?: boolean;
}

/** Where a connection goes, before an address of the workload is picked. */
export interface Upstream {
  readonly workload: Workload;
  /** Target port on the workload. */
  readonly port: number;
  readonly service?: Service;
}

interface Candidate {
  readonly workload: Workload;
  readonly port: number;
}

/** `undefined` when nobody can take the connection. Never falls back to an endpoint its rules exclude. */
export function selectEndpoint(index: MeshIndex, request: EndpointRequest, random: Random): Upstream | undefined {
  const { service, port, isWaypoint = false } = request;
  if (service.loadBalancer.mode === 'Passthrough') return undefined;
  if (!isWaypoint && !service.ports.has(port)) return undefined;
  const chosen =
    drawn(index, request, random) ?? pickWeighted(nearest(index, request), ({ workload }) => workload.capacity, random);
  return chosen && { workload: chosen.workload, port: chosen.port, service };
}

/** One of `items` with a chance proportional to its weight; `undefined` when no weight is above zero. */
export function pickWeighted<T>(items: readonly T[], weightOf: (item: T) => number, random: Random): T | undefined {
  const total = items.reduce((sum, item) => sum + weightOf(item), 0);
  let left = random.next() * total;
  let last: T | undefined;
  for (const item of items) {
    const weight = weightOf(item);
    if (weight <= 0) continue;
    last = item;
    left -= weight;
    if (left < 0) return item;
  }
  // Rounding may leave a hair of weight after the last item.
  return last;
}

/**
 * Address of `workload` to dial: the dialled one if it is the workload's, else one its service allows, of the family the
 * client used if there is one.
 */
export function pickIp(workload: Workload, dialledIp: string, families?: Service['ipFamilies']): string | undefined {
  if (workload.ips.includes(dialledIp)) return dialledIp;
  const allowed = workload.ips.filter((ip) => isFamilyAllowed(ipFamily(ip), families));
  return allowed.find((ip) => ipFamily(ip) === ipFamily(dialledIp)) ?? allowed[0];
}

/** From this many members on, drawing at random beats looking at all of them. */
const MANY_MEMBERS = 64;
/** Draws before giving up: with half of the members unfit, one connection in 65,000 looks at all of them. */
const MAX_DRAWS = 16;

/**
 * Rejection sampling for large services without scopes: a member drawn uniformly is kept if it is fit, with a chance
 * proportional to its capacity. The outcome is distributed exactly as that of looking at all; `undefined` = do that.
 */
function drawn(index: MeshIndex, request: EndpointRequest, random: Random): Candidate | undefined {
  const { source, service, port, isWaypoint = false } = request;
  const members = index.members(service);
  if (service.loadBalancer.mode !== 'Standard' || members.length < MANY_MEMBERS) return undefined;
  const maxCapacity = index.maxCapacity(service);
  const ports = portResolver(service, port, isWaypoint);
  for (let draw = 0; draw < MAX_DRAWS; draw++) {
    const workload = members[Math.floor(random.next() * members.length)];
    if (workload === undefined || !isOpen(service, workload) || !isReachable(workload, source)) continue;
    const target = ports(workload);
    if (target !== undefined && random.next() * maxCapacity < workload.capacity) return { workload, port: target };
  }
  return undefined;
}

/** The endpoints of the highest rank that can take the connection, in the order of the index. */
function nearest(index: MeshIndex, { source, service, port, isWaypoint = false }: EndpointRequest): Candidate[] {
  const ports = portResolver(service, port, isWaypoint);
  let best = Number.NEGATIVE_INFINITY;
  let candidates: Candidate[] = [];
  for (const workload of index.members(service)) {
    const rank =
      workload.capacity > 0 && isOpen(service, workload)
        ? scopeRank(service.loadBalancer, source, workload)
        : undefined;
    if (rank === undefined || rank < best || !isReachable(workload, source)) continue;
    const target = ports(workload);
    if (target === undefined) continue;
    if (rank > best) candidates = [];
    best = rank;
    candidates.push({ workload, port: target });
  }
  return candidates;
}

/** Has an address, or a name that will have one, or a gateway in front of its network. */
function isReachable(workload: Workload, source: Workload): boolean {
  if (workload.ips.length > 0 || workload.hostname !== '') return true;
  return workload.network !== source.network && workload.networkGateway !== undefined;
}

/** Target port by endpoint; everything that does not depend on the endpoint is looked up once. */
function portResolver(service: Service, port: number, isWaypoint: boolean): (endpoint: Workload) => number | undefined {
  const key = serviceKey(service);
  const ofService = service.ports.get(port);
  return ({ services, applicationTunnel }) => {
    if (ofService === undefined && isWaypoint && applicationTunnel === undefined) return undefined;
    const ofEndpoint = services.get(key)?.get(port);
    if (ofEndpoint !== undefined && ofEndpoint > 0) return ofEndpoint;
    if (ofService !== undefined && ofService > 0) return ofService;
    return applicationTunnel?.port === undefined ? undefined : port;
  };
}

/** Higher is nearer; `undefined` = excluded by STRICT. */
function scopeRank(balancer: LoadBalancer, source: Workload, endpoint: Workload): number | undefined {
  const preferences = balancer.routingPreferences;
  switch (balancer.mode) {
    case 'Standard':
    case 'Passthrough':
      return 0;
    case 'Strict':
      return preferences.every((scope) => isSame(scope, source, endpoint)) ? 0 : undefined;
    case 'Failover':
      return preferences[0] === 'Network'
        ? networkFirstRank(preferences.slice(1), source, endpoint)
        : leadingMatches(preferences, source, endpoint);
  }
}

/** The own network outranks any number of other matches; endpoints of other networks are still ordered by the rest. */
function networkFirstRank(others: readonly Scope[], source: Workload, endpoint: Workload): number {
  const isLocal = source.network === endpoint.network;
  return (isLocal ? others.length + 1 : 0) + leadingMatches(others, source, endpoint);
}

function leadingMatches(preferences: readonly Scope[], source: Workload, endpoint: Workload): number {
  const firstMiss = preferences.findIndex((scope) => !isSame(scope, source, endpoint));
  return firstMiss < 0 ? preferences.length : firstMiss;
}

function isSame(scope: Scope, a: Workload, b: Workload): boolean {
  switch (scope) {
    case 'Region':
      return a.locality.region === b.locality.region;
    case 'Zone':
      return a.locality.zone === b.locality.zone;
    case 'Subzone':
      return a.locality.subzone === b.locality.subzone;
    case 'Node':
      return a.node === b.node;
    case 'Cluster':
      return a.clusterId === b.clusterId;
    case 'Network':
      return a.network === b.network;
  }
}

function isFamilyAllowed(family: 4 | 6, families: Service['ipFamilies']): boolean {
  return families === undefined || families === 'Dual' || (families === 'IPv4') === (family === 4);
}
