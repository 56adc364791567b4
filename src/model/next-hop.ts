/** Where an outbound connection goes: refuse, plaintext, HBONE or double HBONE, in order of evaluation. */
import { formatHostPort, type HostPort } from '../base/ip.ts';
import type { Random } from '../base/random.ts';
import { formatHboneAuthority } from '../wire/hbone.ts';
import { missingKey, referenceText, resolveReference } from './gateway-reference.ts';
import { pickIp, pickResolved, selectEndpoint, type Upstream } from './load-balance.ts';
import type { MeshIndex } from './mesh-index.ts';
import { PORTS } from './ports.ts';
import { expectedIdentities, parsableIdentities } from './spiffe.ts';
import type { Refusal } from './verdict.ts';
import { chooseWaypoint, hasWaypoint, isFromWaypoint, waypointInstance } from './waypoint.ts';
import type { GatewayAddress, Service, Workload } from './workload.ts';

export interface OutboundRequest {
  /** The captured pod: known from its netns, not from an address. */
  readonly source: Workload;
  readonly clientIp: string;
  /** What the application dialled. */
  readonly target: HostPort;
}

export type NextHop =
  | SettledHop
  /** The upstream is known by host name alone: the addresses it has now decide. */
  | {
      readonly kind: 'resolve';
      readonly upstream: Workload;
      readonly withAddresses: (ips: readonly string[]) => SettledHop;
    };

export type SettledHop =
  | {
      readonly kind: 'refuse';
      readonly refusal: Refusal;
      /** Key of what is not known and would have to be, as an on-demand control plane takes it. */
      readonly missing?: string | undefined;
    }
  /** `upstream` and `service` are absent when nothing is known about the target. */
  | {
      readonly kind: 'plaintext';
      readonly address: HostPort;
      readonly upstream?: Workload;
      readonly service?: Service;
    }
  | {
      readonly kind: 'hbone';
      readonly address: HostPort;
      readonly authority: string;
      readonly expectedIdentities: readonly string[];
      /** The TLS peer: the destination, or the waypoint in front of it. */
      readonly upstream: Workload;
      /** The service the application meant; never the one of a waypoint. */
      readonly service?: Service;
    }
  | {
      readonly kind: 'double-hbone';
      readonly address: HostPort;
      /** Of the outer and of the inner CONNECT. */
      readonly authority: string;
      readonly expectedIdentities: readonly string[];
      readonly innerExpectedIdentities: readonly string[];
      /** The gateway. */
      readonly upstream: Workload;
      readonly service: Service;
    };

export function nextHop(index: MeshIndex, request: OutboundRequest, random: Random): NextHop {
  const { source, target } = request;
  const { service, workload } = index.owner(source.network, target.ip, source.namespace);
  if (service === undefined) {
    if (workload === undefined) return { kind: 'plaintext', address: target };
    return towards(index, request, { workload, port: target.port }, random);
  }
  if (hasWaypoint(service))
    return throughWaypoint(index, request, { reference: chooseWaypoint(service, random), service }, random);
  if (service.loadBalancer.mode === 'Passthrough') return passthrough(index, request, service, random);
  const upstream = selectEndpoint(index, { source, service, port: target.port }, random);
  if (upstream !== undefined) return towards(index, request, upstream, random);
  return refuse('CV-NO-ENDPOINT', `no healthy upstream: ${formatHostPort(target)}`);
}

/** As dialled. A workload at that very address is still treated as one: it must not be reached in plaintext by accident. */
function passthrough(index: MeshIndex, request: OutboundRequest, service: Service, random: Random): NextHop {
  const { source, target } = request;
  const workload = index.workloads.byAddress(source.network, target.ip);
  if (workload !== undefined) return towards(index, request, { workload, port: target.port }, random);
  return { kind: 'plaintext', address: target, service };
}

function towards(index: MeshIndex, request: OutboundRequest, upstream: Upstream, random: Random): NextHop {
  const { source, clientIp } = request;
  const { workload, service } = upstream;
  if (workload.network !== source.network) {
    const far = { workload, service, subjectAltNames: service?.subjectAltNames };
    return throughGateway(index, request, far, random);
  }
  const { waypoint } = workload;
  const isPastWaypoint = service !== undefined || waypoint === undefined;
  if (!isPastWaypoint && !isFromWaypoint(index, waypoint, { workload: source, ip: clientIp })) {
    return throughWaypoint(index, request, { reference: waypoint }, random);
  }
  return direct(index, request, upstream, random);
}

function direct(
  index: MeshIndex,
  request: OutboundRequest,
  { workload, port, service }: Upstream,
  random: Random,
): NextHop {
  const { source, target } = request;
  const dial = { workload, dialledIp: target.ip, families: service?.ipFamilies };
  const isNamed = workload.ips.length === 0;
  return atAddress(dial, random, (ip) => {
    // A host name may lead to a service or a pod: who lives at the address decides how it is reached, not who named it.
    if (isNamed && index.services.byVip(source.network, ip, source.namespace) !== undefined) {
      const hop = nextHop(index, { ...request, target: { ip, port } }, random);
      // A service of names again, often the very same: the address is the one that its name has in the world outside.
      if (hop.kind !== 'resolve') return hop;
    }
    const upstream = isNamed ? (index.workloads.byAddress(source.network, ip) ?? workload) : workload;
    const known = { upstream, ...(service && { service }) };
    if (upstream.protocol === 'TCP') return { kind: 'plaintext', address: { ip, port }, ...known };
    return {
      kind: 'hbone',
      address: { ip, port: PORTS.hbone },
      authority: formatHostPort({ ip, port }),
      expectedIdentities: expectedIdentities(upstream, service?.subjectAltNames),
      ...known,
    };
  });
}

function throughWaypoint(
  index: MeshIndex,
  request: OutboundRequest,
  { reference, service }: { readonly reference: GatewayAddress | undefined; readonly service?: Service },
  random: Random,
): NextHop {
  const { source, target } = request;
  const choice = waypointInstance(index, reference, source, random);
  if (choice.kind === 'refuse') return choice;
  const { workload, port, service: waypointService } = choice.upstream;
  if (workload.network !== source.network) {
    const far = { workload, service, subjectAltNames: waypointService?.subjectAltNames };
    return throughGateway(index, request, far, random);
  }
  // A waypoint given by address decides the family itself; by name, the client's family is kept where possible.
  const dialledIp = choice.reference.kind === 'address' ? choice.reference.ip : target.ip;
  return atAddress({ workload, dialledIp, families: waypointService?.ipFamilies }, random, (ip) => ({
    kind: 'hbone',
    address: { ip, port },
    authority: formatHostPort(target),
    expectedIdentities: expectedIdentities(workload, waypointService?.subjectAltNames),
    upstream: workload,
    ...(service && { service }),
  }));
}

/** What lies in another network: known in aggregate only, so that its service vouches for whoever will serve there. */
interface FarEnd {
  /** The endpoint or waypoint that was chosen; it tells which gateway. */
  readonly workload: Workload;
  /** The service the application meant. */
  readonly service: Service | undefined;
  /** Of that service, or of the one of the waypoint. */
  readonly subjectAltNames: readonly string[] | undefined;
}

/** Double HBONE: a tunnel to the gateway of the other network, and one inside it to the far end. */
function throughGateway(index: MeshIndex, request: OutboundRequest, far: FarEnd, random: Random): NextHop {
  const { source, target } = request;
  const { workload, service, subjectAltNames = [] } = far;
  if (service === undefined) {
    return refuse('CV-GATEWAY-UNKNOWN', `no service for target address: ${formatHostPort(target)}`);
  }
  const reference = workload.networkGateway;
  if (reference === undefined) return refuse('CV-GATEWAY-UNKNOWN', `no gateway address: ${workload.name}`);
  const gateway = resolveReference(index, { reference, source }, random);
  if (gateway === undefined) {
    const hop = refuse('CV-GATEWAY-UNKNOWN', `unknown network gateway: ${referenceText(reference)}`);
    return { ...hop, missing: missingKey(index, reference) };
  }
  const innerExpectedIdentities = parsableIdentities(subjectAltNames);
  if (innerExpectedIdentities.length === 0) {
    return refuse('CV-SERVICE-IDENTITY', `no identity to expect in network ${workload.network}: ${service.hostname}`);
  }
  const dialledIp = reference.kind === 'address' ? reference.ip : target.ip;
  const dial = { workload: gateway.workload, dialledIp, families: gateway.service?.ipFamilies };
  return atAddress(dial, random, (ip) => ({
    kind: 'double-hbone',
    address: { ip, port: gateway.port },
    authority: formatHboneAuthority({ kind: 'hostname', hostname: service.hostname, port: target.port }),
    expectedIdentities: expectedIdentities(gateway.workload, gateway.service?.subjectAltNames),
    innerExpectedIdentities,
    upstream: gateway.workload,
    service,
  }));
}

interface Dial {
  readonly workload: Workload;
  /** Where the client wanted to go: kept if the workload has it, else its family is preferred. */
  readonly dialledIp: string;
  readonly families: Service['ipFamilies'];
}

/** The hop that `hopTo` makes of an address of the workload; of a resolved one when it has a host name only. */
function atAddress(
  { workload, dialledIp, families }: Dial,
  random: Random,
  hopTo: (ip: string) => SettledHop,
): NextHop {
  const ip = pickIp(workload, dialledIp, families);
  if (ip !== undefined) return hopTo(ip);
  if (workload.ips.length > 0 || workload.hostname === '') {
    return refuse('CV-NO-ADDRESS', `no valid routing destination for workload: ${workload.name}`);
  }
  const withAddresses = (ips: readonly string[]): SettledHop => {
    const resolved = pickResolved(ips, { dialledIp, families }, random);
    if (resolved !== undefined) return hopTo(resolved);
    const text = `ip addresses were resolved for workload ${workload.uid}, but valid dns response had no A/AAAA records`;
    return refuse('CV-NO-ADDRESS', text);
  };
  return { kind: 'resolve', upstream: workload, withAddresses };
}

function refuse(code: Refusal['code'], text: string): Extract<SettledHop, { kind: 'refuse' }> {
  return { kind: 'refuse', refusal: { code, text } };
}
