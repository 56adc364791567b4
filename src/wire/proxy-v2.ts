/** PROXY protocol version 2 (haproxy `proxy-protocol.txt`), with the TLV by which ambient mode tells the client identity. */
import { MeshError } from '../base/errors.ts';
import { formatIp, type HostPort, ipBytes } from '../base/ip.ts';

export interface ProxyHeader {
  readonly source: HostPort;
  readonly destination: HostPort;
  /** SPIFFE URI of the verified client; absent for plaintext. */
  readonly identity?: string;
}

const SIGNATURE = Uint8Array.of(0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a);
/** Signature, version and command, family and transport, length. */
const FIXED_BYTES = 16;
/** Version 2, command PROXY. */
const VERSION_COMMAND = 0x21;
const TCP4 = 0x11;
const TCP6 = 0x21;
/** TLV type that carries the source SPIFFE URI (istio `proxy_protocol` convention). */
const TLV_IDENTITY = 0xd0;
/** A SPIFFE ID has at most 2048 bytes (SPIFFE-ID §2.4). */
const MAX_IDENTITY_BYTES = 2_048;

/**
 * Bytes to write before the first application byte. Both addresses are written in one family: if they differ, IPv4 goes
 * as IPv4-mapped IPv6, because "unspecified" would lose them.
 */
export function encodeProxyV2({ source, destination, identity }: ProxyHeader): Uint8Array {
  const addresses = sameFamily(addressBytes(source), addressBytes(destination));
  const tlv = identity === undefined ? new Uint8Array() : identityTlv(identity);
  const [from, to] = addresses;
  const bodyBytes = from.length + to.length + 4 + tlv.length;
  const header = new Uint8Array(FIXED_BYTES + bodyBytes);
  const view = new DataView(header.buffer);
  header.set(SIGNATURE);
  header[12] = VERSION_COMMAND;
  header[13] = from.length === 4 ? TCP4 : TCP6;
  view.setUint16(14, bodyBytes);
  header.set(from, FIXED_BYTES);
  header.set(to, FIXED_BYTES + from.length);
  view.setUint16(FIXED_BYTES + from.length + to.length, source.port);
  view.setUint16(FIXED_BYTES + from.length + to.length + 2, destination.port);
  header.set(tlv, header.length - tlv.length);
  return header;
}

/** The header at the start of `bytes` and its length; `undefined` when more bytes are needed. Other TLVs are skipped. */
export function decodeProxyV2(bytes: Uint8Array): { header: ProxyHeader; byteLength: number } | undefined {
  const known = Math.min(bytes.length, SIGNATURE.length);
  if (SIGNATURE.subarray(0, known).some((byte, i) => byte !== bytes[i])) throw malformed('signature');
  if (bytes.length < FIXED_BYTES) return undefined;
  const family = bytes[13];
  if (bytes[12] !== VERSION_COMMAND) throw malformed('version or command');
  if (family !== TCP4 && family !== TCP6) throw malformed('address family');
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const byteLength = FIXED_BYTES + view.getUint16(14);
  const size = family === TCP4 ? 4 : 16;
  const tlvsAt = FIXED_BYTES + 2 * size + 4;
  if (byteLength < tlvsAt) throw malformed('length');
  if (bytes.length < byteLength) return undefined;
  const hostPort = (addressAt: number, portAt: number): HostPort => ({
    ip: formatIp(bytes.subarray(addressAt, addressAt + size)),
    port: view.getUint16(portAt),
  });
  const source = hostPort(FIXED_BYTES, FIXED_BYTES + 2 * size);
  const destination = hostPort(FIXED_BYTES + size, FIXED_BYTES + 2 * size + 2);
  const identity = findIdentity(bytes.subarray(tlvsAt, byteLength));
  return { header: { source, destination, ...(identity !== undefined && { identity }) }, byteLength };
}

function findIdentity(tlvs: Uint8Array): string | undefined {
  let identity: string | undefined;
  for (let at = 0; at < tlvs.length; ) {
    const [type, high, low] = tlvs.subarray(at, at + 3);
    if (high === undefined || low === undefined) throw malformed('TLV header');
    const valueAt = at + 3;
    at = valueAt + ((high << 8) | low);
    if (at > tlvs.length) throw malformed('TLV length');
    if (type === TLV_IDENTITY) identity = decodeUtf8(tlvs.subarray(valueAt, at));
  }
  return identity;
}

function decodeUtf8(bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw malformed('identity');
  }
}

function identityTlv(identity: string): Uint8Array {
  const value = new TextEncoder().encode(identity);
  if (value.length > MAX_IDENTITY_BYTES) {
    throw new MeshError('CV-WIRE-TOO-LARGE', 'PROXY v2 identity is over its limit', {
      bytes: value.length,
      limit: MAX_IDENTITY_BYTES,
    });
  }
  const tlv = new Uint8Array(3 + value.length);
  tlv.set([TLV_IDENTITY, value.length >> 8, value.length & 0xff]);
  tlv.set(value, 3);
  return tlv;
}

function addressBytes({ ip }: HostPort): Uint8Array {
  const bytes = ipBytes(ip);
  if (bytes === undefined) throw malformed('address');
  return bytes;
}

function sameFamily(a: Uint8Array, b: Uint8Array): readonly [Uint8Array, Uint8Array] {
  return a.length === b.length ? [a, b] : [mapped(a), mapped(b)];
}

/** `::ffff:a.b.c.d` of 4 bytes; 16 bytes as they are. */
function mapped(bytes: Uint8Array): Uint8Array {
  if (bytes.length === 16) return bytes;
  const wide = new Uint8Array(16);
  wide.set([0xff, 0xff], 10);
  wide.set(bytes, 12);
  return wide;
}

function malformed(field: string): MeshError {
  return new MeshError('CV-WIRE-MALFORMED', `PROXY v2 header has a wrong ${field}`, { field });
}
