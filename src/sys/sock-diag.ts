/** TCP sockets of a namespace, listed and closed through the kernel (sock_diag(7), linux/inet_diag.h). */
import { readdirSync, readlinkSync } from 'node:fs';
import { MeshError } from '../base/errors.ts';
import { formatIp, type HostPort } from '../base/ip.ts';
import { decodeAttributes, encodeMessage, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, netlinkRequest } from './netlink.ts';
import { inNetns } from './netns.ts';
import { AF_INET, AF_INET6 } from './sockaddr.ts';
import type { Netns, TcpSocket } from './sys.ts';

const NETLINK_SOCK_DIAG = 4;
const SOCK_DIAG_BY_FAMILY = 20;
const SOCK_DESTROY = 21;
const IPPROTO_TCP = 6;
const INET_DIAG_MARK = 15;

/** struct inet_diag_req_v2: family, protocol, extensions, padding, states, then the id. */
const REQUEST_BYTES = 56;
const REQUEST_ID_AT = 8;
/** struct inet_diag_msg: family, state, timer, retransmits, then the id and 20 bytes of counters. */
const MESSAGE_BYTES = 72;
const MESSAGE_ID_AT = 4;
const INODE_AT = 68;
/** struct inet_diag_sockid: ports, addresses of 16 bytes each, interface, cookie. */
const ID_BYTES = 48;
const LOCAL_IP_AT = 4;
const PEER_IP_AT = 20;

/** Some 300,000 sockets: a pod with as many connections as one may have, each of which is several, is listed whole. */
const MAX_SOCKET_DATAGRAMS = 1_024;

const OWN_DESCRIPTORS = '/proc/self/fd';
const TCP_LISTEN = 10;
/** ESTABLISHED, SYN_RECV, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK, CLOSING: there is a peer, and someone here cares. */
const STATES = [1, 3, 4, 5, 8, 9, 11, TCP_LISTEN].reduce((mask, state) => mask | (1 << state), 0);

/** What a kernel without CONFIG_INET_DIAG_DESTROY answers, and what a socket that has just ended does. */
const UNSUPPORTED = 'EOPNOTSUPP';
const GONE = 'ENOENT';

export function tcpSockets(netns: Netns | undefined): TcpSocket[] {
  return inNetns(netns, () => [AF_INET, AF_INET6].flatMap(dumpFamily));
}

/** True when it was there and is closed now: its owner sees ECONNABORTED, its peer a reset. */
export function closeTcp(netns: Netns | undefined, { family, id }: TcpSocket): boolean {
  try {
    inNetns(netns, () => netlinkRequest(NETLINK_SOCK_DIAG, request(SOCK_DESTROY, NLM_F_ACK, family, id)));
    return true;
  } catch (error) {
    const errno = error instanceof MeshError ? error.fields['errno'] : undefined;
    if (errno === UNSUPPORTED || errno === GONE) return false;
    throw error;
  }
}

export function ownSocketInodes(): ReadonlySet<number> {
  const inodes = readdirSync(OWN_DESCRIPTORS).map((fd) => /^socket:\[(\d+)\]$/.exec(targetOf(fd))?.[1]);
  return new Set(inodes.filter((inode) => inode !== undefined).map(Number));
}

/** Empty for a descriptor that is closed meanwhile, the one of the listing itself among them. */
function targetOf(fd: string): string {
  try {
    return readlinkSync(`${OWN_DESCRIPTORS}/${fd}`);
  } catch {
    return '';
  }
}

function dumpFamily(family: number): TcpSocket[] {
  const answer = netlinkRequest(
    NETLINK_SOCK_DIAG,
    request(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, family, new Uint8Array(ID_BYTES)),
    MAX_SOCKET_DATAGRAMS,
  );
  return answer.filter(({ length }) => length >= MESSAGE_BYTES).map(decodeSocket);
}

function decodeSocket(message: Uint8Array): TcpSocket {
  const family = message[0] ?? 0;
  const id = message.slice(MESSAGE_ID_AT, MESSAGE_ID_AT + ID_BYTES);
  return {
    family,
    id,
    local: endpoint(id, family, 0, LOCAL_IP_AT),
    peer: endpoint(id, family, 2, PEER_IP_AT),
    isListener: message[1] === TCP_LISTEN,
    inode: new DataView(message.buffer, message.byteOffset).getUint32(INODE_AT, true),
    mark: decodeAttributes(message.subarray(MESSAGE_BYTES)).get(INET_DIAG_MARK) ?? 0,
  };
}

function endpoint(id: Uint8Array, family: number, portAt: number, ipAt: number): HostPort {
  const port = ((id[portAt] ?? 0) << 8) | (id[portAt + 1] ?? 0);
  return { ip: formatIp(id.slice(ipAt, ipAt + (family === AF_INET ? 4 : 16))), port };
}

function request(type: number, flags: number, family: number, id: Uint8Array): Uint8Array {
  const payload = new Uint8Array(REQUEST_BYTES);
  payload[0] = family;
  payload[1] = IPPROTO_TCP;
  new DataView(payload.buffer).setUint32(4, STATES, true);
  payload.set(id, REQUEST_ID_AT);
  return encodeMessage(type, NLM_F_REQUEST | flags, payload);
}
