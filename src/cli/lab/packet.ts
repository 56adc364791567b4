/** Ethernet, IPv4 or IPv6, and TCP headers of a captured frame (RFC 791, RFC 8200, RFC 9293), read only. Pure. */
import { formatHostPort, formatIp, type HostPort } from '../../base/ip.ts';

export interface TcpSegment {
  readonly from: HostPort;
  readonly to: HostPort;
  readonly sequence: number;
  readonly isSyn: boolean;
  readonly isReset: boolean;
  readonly payload: Uint8Array;
}

const ETHERNET_BYTES = 14;
const ETHERTYPE_IPV4 = 0x0800;
const ETHERTYPE_IPV6 = 0x86dd;
const PROTOCOL_TCP = 6;
const IPV6_BYTES = 40;
const TCP_MIN_BYTES = 20;
const FLAG_SYN = 0x02;
const FLAG_RST = 0x04;

/** Undefined for anything but TCP, and for what is cut short. IPv6 extension headers are not followed: no stack adds any here. */
export function readTcp(frame: Uint8Array): TcpSegment | undefined {
  if (frame.length < ETHERNET_BYTES) return undefined;
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
  const type = view.getUint16(12);
  if (type === ETHERTYPE_IPV4) return readIpv4(frame, view);
  return type === ETHERTYPE_IPV6 ? readIpv6(frame, view) : undefined;
}

function readIpv4(frame: Uint8Array, view: DataView): TcpSegment | undefined {
  const at = ETHERNET_BYTES;
  if (frame.length < at + 20 || frame[at + 9] !== PROTOCOL_TCP) return undefined;
  const headerBytes = ((frame[at] ?? 0) & 0x0f) * 4;
  const totalBytes = view.getUint16(at + 2);
  return readSegment(frame, {
    source: frame.subarray(at + 12, at + 16),
    destination: frame.subarray(at + 16, at + 20),
    at: at + headerBytes,
    // 0 when the card was to cut a segment over 64 KiB: then the frame is the packet.
    end: totalBytes === 0 ? frame.length : Math.min(at + totalBytes, frame.length),
  });
}

function readIpv6(frame: Uint8Array, view: DataView): TcpSegment | undefined {
  const at = ETHERNET_BYTES;
  if (frame.length < at + IPV6_BYTES || frame[at + 6] !== PROTOCOL_TCP) return undefined;
  const payloadBytes = view.getUint16(at + 4);
  return readSegment(frame, {
    source: frame.subarray(at + 8, at + 24),
    destination: frame.subarray(at + 24, at + 40),
    at: at + IPV6_BYTES,
    end: payloadBytes === 0 ? frame.length : Math.min(at + IPV6_BYTES + payloadBytes, frame.length),
  });
}

interface Place {
  readonly source: Uint8Array;
  readonly destination: Uint8Array;
  readonly at: number;
  readonly end: number;
}

function readSegment(frame: Uint8Array, { source, destination, at, end }: Place): TcpSegment | undefined {
  if (end < at + TCP_MIN_BYTES) return undefined;
  const view = new DataView(frame.buffer, frame.byteOffset + at, end - at);
  const headerBytes = (view.getUint8(12) >> 4) * 4;
  if (headerBytes < TCP_MIN_BYTES || at + headerBytes > end) return undefined;
  const flags = view.getUint8(13);
  return {
    from: { ip: formatIp(source), port: view.getUint16(0) },
    to: { ip: formatIp(destination), port: view.getUint16(2) },
    sequence: view.getUint32(4),
    isSyn: (flags & FLAG_SYN) !== 0,
    isReset: (flags & FLAG_RST) !== 0,
    payload: frame.slice(at + headerBytes, end),
  };
}

/** `10.0.0.1:4000 → 10.0.0.2:80`. */
export function formatFlow(segment: Pick<TcpSegment, 'from' | 'to'>): string {
  return `${formatHostPort(segment.from)} → ${formatHostPort(segment.to)}`;
}
