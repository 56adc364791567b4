/** Where an inbound CONNECT goes inside the pod: a target, or the reason to refuse. */
import { type HostPort, ipFamily } from '../base/ip.ts';
import { authorityProblem, type HboneAuthority, parseHboneAuthority } from '../wire/hbone.ts';
import type { DataPathSettings } from './data-path-settings.ts';
import { isInstanceOf } from './gateway-reference.ts';
import type { MeshIndex } from './mesh-index.ts';
import type { Refusal } from './verdict.ts';
import { type GatewayAddress, type Service, serviceKey, type Workload } from './workload.ts';

export interface InboundRequest {
  /** The captured pod that was called. */
  readonly local: Workload;
  /** Local address of the tunnel. Its IP is always the target: an authority never redirects to another address. */
  readonly connectionDst: HostPort;
  /** `:authority` as received. */
  readonly authority: string;
}

export type InboundTarget =
  | { readonly kind: 'refuse'; readonly refusal: Refusal }
  | {
      readonly kind: 'target';
      /** Pod address and the application port the client meant: what policies see. */
      readonly policyDestination: HostPort;
      /** What to dial: the same, or the port of an application tunnel. */
      readonly address: HostPort;
      /** Destination for the PROXY v2 header; absent = no header. */
      readonly tunnelTarget?: HostPort;
      /** The service a host name authority names. */
      readonly service?: Service;
    };

export function inboundTarget(
  index: MeshIndex,
  request: InboundRequest,
  settings: Pick<DataPathSettings, 'illegalPorts' | 'isLocalhostAppTunnelEnabled'>,
): InboundTarget {
  const authority = parseHboneAuthority(request.authority);
  if (authority === undefined) return refuse('CV-AUTHORITY', authorityProblem(request.authority));
  if (!isForThisPod(index, request, authority)) {
    return refuse('CV-IP-MISMATCH', `ip mismatch: ${request.connectionDst.ip} != ${hostOf(authority)}`);
  }
  const resolved = resolvePort(index, request.local, authority);
  if (resolved.kind === 'refuse') return resolved;
  const policyDestination = { ip: request.connectionDst.ip, port: resolved.port };
  const { service } = resolved;
  return applyTunnel(request.local, { authority, policyDestination, ...(service && { service }) }, settings);
}

const TUNNEL_ANNOTATION = 'ambient.istio.io/waypoint-inbound-binding';

interface ResolvedTarget {
  readonly authority: HboneAuthority;
  readonly policyDestination: HostPort;
  readonly service?: Service;
}

function applyTunnel(
  local: Workload,
  { authority, policyDestination, service }: ResolvedTarget,
  settings: Pick<DataPathSettings, 'illegalPorts' | 'isLocalhostAppTunnelEnabled'>,
): InboundTarget {
  const tunnel = local.applicationTunnel;
  const port = tunnel?.port ?? policyDestination.port;
  // Both are looked at: the one asked for (as ztunnel does) and the one really dialled, which is what could loop.
  if (settings.illegalPorts.has(policyDestination.port) || settings.illegalPorts.has(port)) return selfCall();
  if (port > 65_535) {
    const text = `the application tunnel of ${local.name} has port ${port}, which cannot be`;
    return refuse('CV-SERVICE-UNKNOWN', `${text}; correct ${TUNNEL_ANNOTATION} of its Gateway`);
  }
  const known = { kind: 'target', policyDestination, ...(service && { service }) } as const;
  if (tunnel?.protocol !== 'PROXY') return { ...known, address: { ip: policyDestination.ip, port } };
  const tunnelTarget = proxyDestination(local, authority, service);
  if (tunnelTarget === undefined) {
    return refuse('CV-SERVICE-UNKNOWN', `requested service ${hostOf(authority)} found, but has no IP addresses`);
  }
  const ip = settings.isLocalhostAppTunnelEnabled ? loopbackFor(policyDestination.ip) : policyDestination.ip;
  return { ...known, address: { ip, port }, tunnelTarget };
}

/** An agent's own port as destination: 15008 and the like on loopback (outbound), or on any address (inbound). */
export function selfCall(): { readonly kind: 'refuse'; readonly refusal: Refusal } {
  return refuse('CV-SELF-CALL', 'attempted recursive call to ourselves');
}

/** Only the pod itself, or, for a pod that is a waypoint, the things that name it as their waypoint. */
function isForThisPod(index: MeshIndex, { local, connectionDst }: InboundRequest, authority: HboneAuthority): boolean {
  if (authority.kind === 'hostname' || authority.ip === connectionDst.ip) return true;
  if (local.applicationTunnel !== undefined) return true;
  const references = [
    ...waypointsOf(index.workloads.byAddress(local.network, authority.ip)),
    ...waypointsOf(index.services.byVip(local.network, authority.ip, local.namespace)),
    ...waypointsOf(index.services.byCidr(local.network, authority.ip, local.namespace)),
  ];
  return references.some((reference) => isInstanceOf(index, reference, local, connectionDst.ip));
}

function waypointsOf(owner: Workload | Service | undefined): readonly GatewayAddress[] {
  if (owner === undefined) return [];
  const weighted = 'weightedWaypoints' in owner ? owner.weightedWaypoints.map(({ destination }) => destination) : [];
  return owner.waypoint === undefined ? weighted : [owner.waypoint, ...weighted];
}

function resolvePort(
  index: MeshIndex,
  local: Workload,
  authority: HboneAuthority,
):
  | { readonly kind: 'port'; readonly port: number; readonly service?: Service }
  | { readonly kind: 'refuse'; readonly refusal: Refusal } {
  if (authority.kind === 'address') return { kind: 'port', port: authority.port };
  const { hostname, port } = authority;
  const service = index.services.byHostname(hostname, local.namespace);
  if (service === undefined) {
    return refuse('CV-SERVICE-UNKNOWN', `no service or workload for hostname: ${hostname}`);
  }
  const ofEndpoint = local.services.get(serviceKey(service))?.get(port) ?? 0;
  const target = ofEndpoint > 0 ? ofEndpoint : (service.ports.get(port) ?? 0);
  if (target > 0) return { kind: 'port', port: target, service };
  return refuse('CV-SERVICE-UNKNOWN', `requested service ${hostname}:${port} found, but cannot resolve port`);
}

/** The address the client meant, for the PROXY header: of a service the VIP in our network, IPv4 before IPv6. */
function proxyDestination(local: Workload, authority: HboneAuthority, service?: Service): HostPort | undefined {
  if (authority.kind === 'address') return { ip: authority.ip, port: authority.port };
  const [best] = (service?.vips ?? []).toSorted(
    (a, b) =>
      Number(b.network === local.network) - Number(a.network === local.network) || ipFamily(a.ip) - ipFamily(b.ip),
  );
  return best && { ip: best.ip, port: authority.port };
}

function loopbackFor(ip: string): string {
  return ipFamily(ip) === 6 ? '::1' : '127.0.0.1';
}

function hostOf(authority: HboneAuthority): string {
  return authority.kind === 'address' ? authority.ip : authority.hostname;
}

function refuse(code: Refusal['code'], text: string): { readonly kind: 'refuse'; readonly refusal: Refusal } {
  return { kind: 'refuse', refusal: { code, text } };
}
