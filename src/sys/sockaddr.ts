/** `struct sockaddr_in` and `sockaddr_in6` of Linux as bytes (ip(7), ipv6(7)). Pure. */
import { formatIp, type HostPort, ipBytes, ipFamily } from '../base/ip.ts';

export const AF_UNIX = 1;
export const AF_INET = 2;
export const AF_INET6 = 10;
export const SOCK_STREAM = 1;
/** SOCK_NONBLOCK | SOCK_CLOEXEC: with every socket of ours. */
export const SOCK_FLAGS = 0o2_004_000;
export const SOCKADDR_IN_BYTES = 16;
export const SOCKADDR_IN6_BYTES = 28;

const PORT_AT = 2;
const V4_ADDRESS_AT = 4;
const V6_ADDRESS_AT = 8;

/** Family by the spelling of the address: `::ffff:10.0.0.1` stays IPv6. `undefined` when `ip` is no address. */
export function encodeSockaddr({ ip, port }: HostPort): Uint8Array | undefined {
  const bytes = ipBytes(ip);
  if (bytes === undefined) return undefined;
  return ipFamily(ip) === 4 ? encodeV4(bytes, port) : encodeV6(bytes, port);
}

function encodeV4(address: Uint8Array, port: number): Uint8Array {
  const out = new Uint8Array(SOCKADDR_IN_BYTES);
  const view = new DataView(out.buffer);
  // Host byte order for the family alone; both machines we ship for are little endian.
  view.setUint16(0, AF_INET, true);
  view.setUint16(PORT_AT, port);
  out.set(address, V4_ADDRESS_AT);
  return out;
}

function encodeV6(address: Uint8Array, port: number): Uint8Array {
  const out = new Uint8Array(SOCKADDR_IN6_BYTES);
  const view = new DataView(out.buffer);
  view.setUint16(0, AF_INET6, true);
  view.setUint16(PORT_AT, port);
  if (address.length === 4) {
    out.set([0xff, 0xff], V6_ADDRESS_AT + 10);
    out.set(address, V6_ADDRESS_AT + 12);
  } else {
    out.set(address, V6_ADDRESS_AT);
  }
  return out;
}

/** Canonical address and port; `undefined` when `bytes` is too short or of another family. */
export function decodeSockaddr(bytes: Uint8Array): HostPort | undefined {
  if (bytes.length < V4_ADDRESS_AT) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const family = view.getUint16(0, true);
  const port = view.getUint16(PORT_AT);
  if (family === AF_INET && bytes.length >= SOCKADDR_IN_BYTES) {
    return { ip: formatIp(bytes.slice(V4_ADDRESS_AT, V4_ADDRESS_AT + 4)), port };
  }
  if (family === AF_INET6 && bytes.length >= SOCKADDR_IN6_BYTES) {
    return { ip: formatIp(bytes.slice(V6_ADDRESS_AT, V6_ADDRESS_AT + 16)), port };
  }
  return undefined;
}
