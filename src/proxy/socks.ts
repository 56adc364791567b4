/**
 * SOCKS5, port 15080 on loopback of a pod: an application names its destination itself, and its connection then goes the
 * way of every outbound one. The reference says "succeeded" before it has dialled; here the reply tells how it went.
 */
import type net from 'node:net';
import { withDeadline } from '../base/clock.ts';
import { MeshError, toMeshError } from '../base/errors.ts';
import { type HostPort, ipFamily } from '../base/ip.ts';
import { type ReasonCode, reasonOf } from '../base/reasons.ts';
import { resetSocket } from '../sys/tcp.ts';
import { encodeAddressQuery, readAddresses } from '../wire/dns-client.ts';
import { SOCKS_REPLY, type SocksReply, socksReply } from '../wire/socks5.ts';
import type { TunnelPool } from './connect.ts';
import type { DnsServer } from './dns-server.ts';
import { carryOutbound } from './outbound.ts';
import type { PodContext } from './pod-context.ts';
import { SocksHandshake } from './socks-handshake.ts';

export interface SocksServices {
  readonly pool: TunnelPool;
  /** Resolves host names; without it they are refused. */
  readonly dns: DnsServer | undefined;
}

/** Carries or refuses one accepted socket. Rejects only by a defect. */
export async function serveSocks(context: PodContext, services: SocksServices, socket: net.Socket): Promise<void> {
  const ends = context.endsOf(socket);
  if (ends === undefined) {
    resetSocket(socket);
    return;
  }
  const id = context.nextId();
  const handshake = new SocksHandshake(socket);
  const answer = (code: ReasonCode | undefined): void => handshake.answer(socksReply(replyFor(code)));
  const target = await targetOf(context, services.dns, handshake, ends.peer).catch(toMeshError);
  if (!(target instanceof MeshError)) {
    await carryOutbound(context, services.pool, { id, socket, client: ends.peer, target, answer });
    return;
  }
  const refusal = context.refusalFor(target);
  context.refuse({ start: { id, direction: 'outbound', protocol: 'TCP', src: ends.peer, dst: ends.local }, refusal });
  answer(refusal.code);
  resetSocket(socket);
}

async function targetOf(
  context: PodContext,
  dns: DnsServer | undefined,
  handshake: SocksHandshake,
  client: HostPort,
): Promise<HostPort> {
  const { settings, deps, connections } = context;
  if (context.isFull) throw context.limitError();
  const late = (): MeshError => new MeshError('CV-SOCKS', 'SOCKS: the client did not say in time what it wants');
  const asked = withDeadline(handshake.request(), deps.clock, settings.handshakeTimeoutMs, late);
  const wanted = await connections.arrive(asked);
  const { port } = wanted;
  if (wanted.kind === 'address') return { ip: wanted.ip, port };
  return { ip: await connections.arrive(lookUp(context, dns, wanted.hostname, client.ip)), port };
}

/** As the pod itself would find it, and in the family that its client speaks. */
async function lookUp(
  { deps }: PodContext,
  dns: DnsServer | undefined,
  hostname: string,
  clientIp: string,
): Promise<string> {
  if (dns === undefined) throw new MeshError('CV-SOCKS-NAME', `no DNS proxy resolves ${hostname}`);
  const type = ipFamily(clientIp) === 4 ? 'A' : 'AAAA';
  const id = Number.parseInt(deps.random.hex(2), 16);
  const reply = await dns.ask(encodeAddressQuery(id, hostname, type));
  const [ip] = reply === undefined ? [] : readAddresses(reply, type);
  if (ip === undefined) throw new MeshError('CV-SOCKS-NAME', `no ${type} record of ${hostname}`);
  return ip;
}

function replyFor(code: ReasonCode | undefined): SocksReply {
  if (code === undefined) return SOCKS_REPLY.succeeded;
  return REPLIES[code] ?? (reasonOf(code).layer === 'policy' ? SOCKS_REPLY.notAllowed : SOCKS_REPLY.generalFailure);
}

const REPLIES: Partial<Record<ReasonCode, SocksReply>> = {
  'CV-SOCKS': SOCKS_REPLY.commandNotSupported,
  'CV-WIRE-MALFORMED': SOCKS_REPLY.commandNotSupported,
  'CV-SOCKS-NAME': SOCKS_REPLY.hostUnreachable,
  'CV-SELF-CALL': SOCKS_REPLY.notAllowed,
  'CV-CONNECT-DENIED': SOCKS_REPLY.notAllowed,
  'CV-GATEWAY-UNKNOWN': SOCKS_REPLY.networkUnreachable,
  'CV-NO-ENDPOINT': SOCKS_REPLY.hostUnreachable,
  'CV-NO-ADDRESS': SOCKS_REPLY.hostUnreachable,
  'CV-WAYPOINT-UNKNOWN': SOCKS_REPLY.hostUnreachable,
  'CV-TUNNEL-TIMEOUT': SOCKS_REPLY.hostUnreachable,
  'CV-APP-TIMEOUT': SOCKS_REPLY.hostUnreachable,
  'CV-TUNNEL-REFUSED': SOCKS_REPLY.connectionRefused,
  'CV-APP-REFUSED': SOCKS_REPLY.connectionRefused,
};
