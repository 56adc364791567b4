/** Netlink as bytes and one round trip to the kernel (netlink(7)): requests, answers, attributes. */
import { getSystemErrorName } from 'node:util';
import { MeshError } from '../base/errors.ts';
import { callError, errnoError, libc } from './libc.ts';

const AF_NETLINK = 16;
const SOCK_RAW_CLOEXEC = 3 | 0o2_000_000;
export const NETLINK_ROUTE = 0;
export const NETLINK_NETFILTER = 12;

export const NLM_F_REQUEST = 0x1;
export const NLM_F_ACK = 0x4;
export const NLM_F_REPLACE = 0x100;
export const NLM_F_EXCL = 0x200;
export const NLM_F_CREATE = 0x400;
export const NLM_F_DUMP = 0x300;
const NLMSG_ERROR = 2;
const NLMSG_DONE = 3;

/** struct nlmsghdr: length, type, flags, sequence, port. */
const HEADER_BYTES = 16;
const TYPE_AT = 4;
const FLAGS_AT = 6;
/** struct nlattr: length, type. */
const ATTRIBUTE_HEADER_BYTES = 4;

/** The kernel puts at most 32 KiB into one datagram of a dump. */
const RECEIVE_BYTES = 64 * 1024;
/** Thousands of routes. */
const MAX_DATAGRAMS = 64;
const MSG_DONTWAIT = 0x40;
/** Emptied before the next request of this thread. */
const buffer = new Uint8Array(RECEIVE_BYTES);

export interface NetlinkMessage {
  readonly type: number;
  readonly payload: Uint8Array;
}

/**
 * Payloads of the kernel's answer to one request; for an acknowledgement none. Runs in the namespace of the thread. Throws
 * `CV-SYS` with the errno the kernel answered.
 */
export function netlinkRequest(protocol: number, request: Uint8Array, maxDatagrams = MAX_DATAGRAMS): Uint8Array[] {
  const fd = libc.socket(AF_NETLINK, SOCK_RAW_CLOEXEC, protocol);
  if (fd < 0) throw callError('CV-SYS', 'socket(AF_NETLINK)');
  try {
    if (libc.send(fd, request, request.length, 0) < 0) throw callError('CV-SYS', 'send on netlink');
    return readAnswer(fd, isDump(request), maxDatagrams);
  } finally {
    libc.close(fd);
  }
}

/** The kernel answers while we send, so there is nothing to wait for. */
function readAnswer(fd: number, isMultipart: boolean, maxDatagrams: number): Uint8Array[] {
  const payloads: Uint8Array[] = [];
  for (let datagrams = 0; datagrams < maxDatagrams; datagrams += 1) {
    const received = libc.recv(fd, buffer, buffer.length, MSG_DONTWAIT);
    if (received < 0) throw callError('CV-SYS', 'recv on netlink');
    for (const { type, payload } of decodeMessages(buffer.subarray(0, received))) {
      if (type === NLMSG_DONE) return payloads;
      if (type !== NLMSG_ERROR) payloads.push(payload.slice());
      else if (isAcknowledgement(payload)) return payloads;
    }
    if (!isMultipart) return payloads;
  }
  throw new MeshError('CV-SYS', 'netlink answered too much', { limit: maxDatagrams });
}

function isAcknowledgement(payload: Uint8Array): boolean {
  const errno = viewOf(payload).getInt32(0, true);
  if (errno === 0) return true;
  throw errnoError('CV-SYS', 'netlink request', getSystemErrorName(errno));
}

function isDump(request: Uint8Array): boolean {
  return (viewOf(request).getUint16(FLAGS_AT, true) & NLM_F_DUMP) === NLM_F_DUMP;
}

/** Stops at the first header that makes no sense. */
export function* decodeMessages(datagram: Uint8Array): Iterable<NetlinkMessage> {
  const view = viewOf(datagram);
  for (let at = 0; at + HEADER_BYTES <= datagram.length; ) {
    const length = view.getUint32(at, true);
    if (length < HEADER_BYTES || at + length > datagram.length) return;
    yield { type: view.getUint16(at + TYPE_AT, true), payload: datagram.subarray(at + HEADER_BYTES, at + length) };
    at += aligned(length);
  }
}

export function encodeMessage(type: number, flags: number, payload: Uint8Array): Uint8Array {
  const out = new Uint8Array(HEADER_BYTES + payload.length);
  const view = viewOf(out);
  view.setUint32(0, out.length, true);
  view.setUint16(TYPE_AT, type, true);
  view.setUint16(FLAGS_AT, flags, true);
  out.set(payload, HEADER_BYTES);
  return out;
}

/** 32-bit attributes by type; others and whatever does not fit are left out. */
export function decodeAttributes(bytes: Uint8Array): ReadonlyMap<number, number> {
  const found = new Map<number, number>();
  const view = viewOf(bytes);
  for (let at = 0; at + ATTRIBUTE_HEADER_BYTES <= bytes.length; ) {
    const length = view.getUint16(at, true);
    if (length < ATTRIBUTE_HEADER_BYTES || at + length > bytes.length) break;
    if (length === ATTRIBUTE_HEADER_BYTES + 4) found.set(view.getUint16(at + 2, true), view.getUint32(at + 4, true));
    at += aligned(length);
  }
  return found;
}

export function encodeAttributes(attributes: Iterable<readonly [type: number, value: number]>): Uint8Array {
  const list = [...attributes];
  const out = new Uint8Array(list.length * (ATTRIBUTE_HEADER_BYTES + 4));
  const view = viewOf(out);
  for (const [i, [type, value]] of list.entries()) {
    view.setUint16(8 * i, ATTRIBUTE_HEADER_BYTES + 4, true);
    view.setUint16(8 * i + 2, type, true);
    view.setUint32(8 * i + 4, value, true);
  }
  return out;
}

function aligned(length: number): number {
  return (length + 3) & ~3;
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
