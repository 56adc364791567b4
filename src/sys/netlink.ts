/**
 * A fingerprint of a namespace's packet handling, taken over netlink without starting a process: the generation of the
 * nft rules, the policy rules and the routes of one table (netlink(7), rtnetlink(7), linux/netfilter/nf_tables.h).
 */
import { createHash } from 'node:crypto';
import { MeshError } from '../base/errors.ts';
import { callError, libc } from './libc.ts';
import { inNetns } from './netns.ts';
import type { Netns } from './sys.ts';

const AF_NETLINK = 16;
const SOCK_RAW_CLOEXEC = 3 | 0o2_000_000;
const NETLINK_ROUTE = 0;
const NETLINK_NETFILTER = 12;

/** struct nlmsghdr: length, type, flags, sequence, port. */
const HEADER_BYTES = 16;
const TYPE_AT = 4;
const FLAGS_AT = 6;
const NLM_F_REQUEST = 1;
const NLM_F_DUMP = 0x300;
const NLMSG_ERROR = 2;
const NLMSG_DONE = 3;

const RTM_GETROUTE = 26;
const RTM_GETRULE = 34;
const AF_INET = 2;
const AF_INET6 = 10;
/** struct rtmsg, and struct fib_rule_hdr likewise: family first, table fifth. */
const RTMSG_BYTES = 12;
const TABLE_AT = 4;

const NFNL_SUBSYS_NFTABLES = 10;
const NFT_MSG_GETGEN = 16;
/** struct nfgenmsg and the first attribute, the generation; what follows names the process that asks. */
const GENERATION_BYTES = 12;

/** The kernel puts at most 32 KiB into one datagram of a dump. */
const RECEIVE_BYTES = 64 * 1024;
/** Thousands of routes; a pod with more is compared in full each time. */
const MAX_DATAGRAMS = 64;
const MSG_DONTWAIT = 0x40;

/** Equal texts: no nft transaction, and no change of the policy rules or of `table`, lies between. Throws `CV-SYS`. */
export function netnsFingerprint(netns: Netns | undefined, table: number): string {
  return inNetns(netns, () => {
    const hash = createHash('sha256');
    exchange(NETLINK_NETFILTER, GET_GENERATION, (payload) => hash.update(payload.subarray(0, GENERATION_BYTES)));
    for (const family of [AF_INET, AF_INET6]) {
      exchange(NETLINK_ROUTE, dump(RTM_GETRULE, family), (payload) => hash.update(payload));
      exchange(NETLINK_ROUTE, dump(RTM_GETROUTE, family), (payload) => {
        // Kernels do not filter dumps unless told in a newer way.
        if (payload[TABLE_AT] === table) hash.update(payload);
      });
    }
    return hash.digest('base64');
  });
}

/** Sends one request and hands out the payload of every message of the answer. */
function exchange(protocol: number, request: Uint8Array, onPayload: (payload: Uint8Array) => void): void {
  const fd = libc.socket(AF_NETLINK, SOCK_RAW_CLOEXEC, protocol);
  if (fd < 0) throw callError('CV-SYS', 'socket(AF_NETLINK)');
  try {
    if (libc.send(fd, request, request.length, 0) < 0) throw callError('CV-SYS', 'send on netlink');
    const isDump = (request[FLAGS_AT + 1] ?? 0) !== 0;
    for (let datagrams = 0; datagrams < MAX_DATAGRAMS; datagrams += 1) {
      if (!readDatagram(fd, onPayload) || !isDump) return;
    }
    throw new MeshError('CV-SYS', 'a pod has too many routes or rules to look at', { limit: MAX_DATAGRAMS });
  } finally {
    libc.close(fd);
  }
}

/** False after the last datagram of an answer. The kernel answers while we send, so there is nothing to wait for. */
function readDatagram(fd: number, onPayload: (payload: Uint8Array) => void): boolean {
  const received = libc.recv(fd, receiveBuffer, receiveBuffer.length, MSG_DONTWAIT);
  if (received < 0) throw callError('CV-SYS', 'recv on netlink');
  for (const { type, payload } of messages(receiveBuffer.subarray(0, received))) {
    if (type === NLMSG_DONE) return false;
    // A kernel without the family or the subsystem says so each time in the same way: errno, then our request again.
    if (type === NLMSG_ERROR) {
      onPayload(payload.subarray(0, 4));
      return false;
    }
    onPayload(payload);
  }
  return received > 0;
}

interface Message {
  readonly type: number;
  readonly payload: Uint8Array;
}

function* messages(datagram: Uint8Array): Iterable<Message> {
  const view = new DataView(datagram.buffer, datagram.byteOffset, datagram.byteLength);
  for (let at = 0; at + HEADER_BYTES <= datagram.length; ) {
    const length = view.getUint32(at, true);
    if (length < HEADER_BYTES) return;
    yield { type: view.getUint16(at + TYPE_AT, true), payload: datagram.subarray(at + HEADER_BYTES, at + length) };
    at += (length + 3) & ~3;
  }
}

function dump(type: number, family: number): Uint8Array {
  const payload = new Uint8Array(RTMSG_BYTES);
  payload[0] = family;
  return message(type, NLM_F_REQUEST | NLM_F_DUMP, payload);
}

function message(type: number, flags: number, payload: Uint8Array): Uint8Array {
  const out = new Uint8Array(HEADER_BYTES + payload.length);
  const view = new DataView(out.buffer);
  view.setUint32(0, out.length, true);
  view.setUint16(TYPE_AT, type, true);
  view.setUint16(FLAGS_AT, flags, true);
  out.set(payload, HEADER_BYTES);
  return out;
}

const receiveBuffer = new Uint8Array(RECEIVE_BYTES);
/** struct nfgenmsg: family, version, resource id; all zero. */
const GET_GENERATION = message((NFNL_SUBSYS_NFTABLES << 8) | NFT_MSG_GETGEN, NLM_F_REQUEST, new Uint8Array(4));
