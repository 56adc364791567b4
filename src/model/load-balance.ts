/** Chooses one endpoint of a service and its target port: health, scopes, failover, capacity weights. */
import { ipFamily } from '../base/ip.ts';
import type { Random } from '../base/random.ts';
import type { EndpointPool, Members, Place } from './member-index.ts';
import { isOpen, type MeshIndex } from './mesh-index.ts';
import { highestRank, scopeRank, scopeValue } from './scope-rank.ts';
import type { Service, Workload } from './workload.ts';

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

/** `undefined` when nobody can take the connection. Never falls back to an endpoint its rules exclude. */
export function selectEndpoint(index: MeshIndex, request: EndpointRequest, random: Random): Upstream | undefined {
  const { service, port, isWaypoint = false } = request;
  if (service.loadBalancer.mode === 'Passthrough') return undefined;
  if (!isWaypoint && !service.ports.has(port)) return undefined;
  const members = index.members(service);
  const target = portResolver(members.serviceKey, service, port, isWaypoint);
  const workload = drawn(members, request, target, random) ?? drawFrom(nearest(members, request, target), random);
  const targetPort = workload && target(workload);
  return workload === undefined || targetPort === undefined ? undefined : { workload, port: targetPort, service };
}

/** One of `items` with a chance proportional to its weight; `undefined` when no weight is above zero. */
export function pickWeighted<T>(items: readonly T[], weightOf: (item: T) => number, random: Random): T | undefined {
  const [first] = items;
  // Chance has no part in it, which lets the verdict be used again.
  if (items.length === 1 && first !== undefined) return weightOf(first) > 0 ? first : undefined;
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
  const { ips } = workload;
  if (ips.includes(dialledIp)) return dialledIp;
  const allowed = ips.filter((ip) => isFamilyAllowed(ipFamily(ip), families));
  return allowed.find((ip) => ipFamily(ip) === ipFamily(dialledIp)) ?? allowed[0];
}

/** Of the addresses a host name has: one at random, of the family the client used if there is one. */
export function pickResolved(
  ips: readonly string[],
  { dialledIp, families }: { readonly dialledIp: string; readonly families?: Service['ipFamilies'] },
  random: Random,
): string | undefined {
  const allowed = ips.filter((ip) => isFamilyAllowed(ipFamily(ip), families));
  const alike = allowed.filter((ip) => ipFamily(ip) === ipFamily(dialledIp));
  const best = alike.length > 0 ? alike : allowed;
  return best[Math.floor(random.next() * best.length)];
}

/** Below it, looking at all members once is cheaper than drawing until one of the best rank comes up. */
const MANY_MEMBERS = 64;
/** Draws before giving up: with half of the members unfit, one connection in 65,000 looks at all of them. */
const MAX_DRAWS = 16;

/**
 * Rejection sampling: a member drawn uniformly is kept if no rank is higher than its own, with a chance proportional to its
 * capacity. The outcome is distributed exactly as that of looking at all, which `undefined` asks for. The first connection to a
 * service looks at one or two members only, and nothing is kept that a change of one would spoil.
 */
function drawn(members: Members, request: EndpointRequest, target: PortResolver, random: Random): Workload | undefined {
  const { all, maxCapacity } = members;
  const balancer = request.service.loadBalancer;
  const isSmall = all.length < (balancer.mode === 'Failover' ? MANY_MEMBERS : 2);
  // Once it was in vain, what was found by looking at all is at hand until a member changes.
  if (isSmall || members.hasPool(request.service)) return undefined;
  const best = highestRank(balancer);
  for (let draw = 0; draw < MAX_DRAWS; draw++) {
    const workload = all[Math.floor(random.next() * all.length)];
    if (workload === undefined || rankOf(workload, request, target) !== best) continue;
    if (random.next() * maxCapacity < workload.capacity) return workload;
  }
  return undefined;
}

/** The members of the highest rank that can take the connection; kept until one of them or their service changes. */
function nearest(members: Members, request: EndpointRequest, target: PortResolver): EndpointPool {
  const place = placeOf(request);
  const known = members.pool(request.service, place);
  if (known !== undefined) return known;
  const fit = fittest(members.all, request, target);
  const pool = { place, members: fit, totals: runningTotals(fit) };
  members.keep(request.service, pool);
  return pool;
}

function placeOf({ source, service, port, isWaypoint = false }: EndpointRequest): Place {
  const scopes = service.loadBalancer.routingPreferences.map((scope) => scopeValue(scope, source));
  return { port, isWaypoint, network: source.network, scopes };
}

function fittest(members: readonly Workload[], request: EndpointRequest, target: PortResolver): readonly Workload[] {
  let best = Number.NEGATIVE_INFINITY;
  let fit: Workload[] = [];
  for (const workload of members) {
    const rank = rankOf(workload, request, target);
    if (rank === undefined || rank < best) continue;
    if (rank > best) fit = [];
    best = rank;
    fit.push(workload);
  }
  return fit;
}

function runningTotals(members: readonly Workload[]): readonly number[] {
  let total = 0;
  return members.map(({ capacity }) => (total += capacity));
}

/** One member with a chance proportional to its capacity: the first whose running total exceeds the draw. */
function drawFrom({ members, totals }: EndpointPool, random: Random): Workload | undefined {
  // As in `pickWeighted`: without a choice the verdict can be used again.
  if (members.length < 2) return members[0];
  const draw = random.next() * (totals.at(-1) ?? 0);
  let [low, high] = [0, members.length - 1];
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((totals[middle] ?? 0) > draw) high = middle;
    else low = middle + 1;
  }
  return members[low];
}

/** How near an endpoint is that can take the connection; `undefined` when it cannot. */
function rankOf(workload: Workload, { source, service }: EndpointRequest, target: PortResolver): number | undefined {
  if (workload.capacity === 0 || !isOpen(service, workload) || !isReachable(workload, source)) return undefined;
  return target(workload) === undefined ? undefined : scopeRank(service.loadBalancer, source, workload);
}

/** Has an address, or a name that will have one, or a gateway in front of its network. */
function isReachable(workload: Workload, source: Workload): boolean {
  if (workload.hostname !== '' || workload.ips.length > 0) return true;
  return workload.network !== source.network && workload.networkGateway !== undefined;
}

type PortResolver = (endpoint: Workload) => number | undefined;

/** Target port by endpoint; everything that does not depend on the endpoint is looked up once. */
function portResolver(key: string, service: Service, port: number, isWaypoint: boolean): PortResolver {
  const ofService = service.ports.get(port);
  const resolve: PortResolver = ({ services, applicationTunnel }) => {
    if (ofService === undefined && isWaypoint && applicationTunnel === undefined) return undefined;
    const ofEndpoint = services.get(key)?.get(port);
    if (ofEndpoint !== undefined && ofEndpoint > 0) return ofEndpoint;
    if (ofService !== undefined && ofService > 0) return ofService;
    return applicationTunnel?.port === undefined ? undefined : port;
  };
  // Replicas of one deployment have both in common, so the answer for one is nearly always that for the next.
  let last: Pick<Workload, 'services' | 'applicationTunnel'> | undefined;
  let lastPort: number | undefined;
  return (endpoint) => {
    if (endpoint.services !== last?.services || endpoint.applicationTunnel !== last.applicationTunnel) {
      lastPort = resolve(endpoint);
      last = endpoint;
    }
    return lastPort;
  };
}

function isFamilyAllowed(family: 4 | 6, families: Service['ipFamilies']): boolean {
  return families === undefined || families === 'Dual' || (families === 'IPv4') === (family === 4);
}
