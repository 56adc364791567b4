/** Values inside xDS resources, checked one by one. A throw rejects the resource: nothing of it is used. */

import { MeshError } from '../base/errors.ts';
import { formatCidr, formatIp } from '../base/ip.ts';
import { isSegment } from '../model/spiffe.ts';
import type { GatewayAddress, NetworkAddress, NetworkCidr } from '../model/workload.ts';
import type {
  GatewayAddress as GatewayAddressMessage,
  NetworkAddress as NetworkAddressMessage,
  Port,
} from '../wire/pb/workload_pb.ts';
import { quote } from './decode-value.ts';

/** istiod's port for HBONE; what a reference without one means. */
const DEFAULT_HBONE_PORT = 15_008;
/** Longest text field, characters; host names and UIDs stay under it. */
const MAX_TEXT = 1_024;
/** Longest namespace, service account or trust domain, characters. */
const MAX_SEGMENT = 253;
/** Longest list inside one resource, for example the addresses of a service. */
const MAX_ITEMS = 10_000;

export function refuse(field: string, problem: string): never {
  throw new MeshError('CV-WIRE-MALFORMED', `${field}: ${problem}`);
}

/** Printable text; empty is allowed. Control characters would end up in headers and logs. */
export function text(value: string, field: string): string {
  if (value.length > MAX_TEXT) return refuse(field, `text is over ${MAX_TEXT} characters`);
  // oxlint-disable-next-line no-control-regex -- control characters are what is looked for
  return /[\x00-\x1f\x7f-\x9f]/.test(value) ? refuse(field, 'text holds a control character') : value;
}

export function required(value: string, field: string): string {
  return value === '' ? refuse(field, 'is empty') : text(value, field);
}

/** Part of a SPIFFE ID, or empty: nothing that could change the shape of an identity. */
export function segment(value: string, field: string): string {
  if (value !== '' && (!isSegment(value) || value.length > MAX_SEGMENT)) refuse(field, `${quote(value)} is not a name`);
  return value;
}

/** `namespace/rest`, each not empty. */
export function reference(value: string, field: string): string {
  const slash = value.indexOf('/');
  if (slash < 1 || slash === value.length - 1) refuse(field, `${quote(value)} is not namespace/name`);
  return text(value, field);
}

export function list<T, U>(values: readonly T[], field: string, decode: (value: T, field: string) => U): readonly U[] {
  if (values.length > MAX_ITEMS) return refuse(field, `has over ${MAX_ITEMS} items`);
  return values.map((value, i) => decode(value, `${field}[${i}]`));
}

/** What an enum number means here. Numbers that a newer control plane knows are refused, never guessed. */
export function known<T>(table: Readonly<Record<number, T>>, value: number, field: string): T {
  return table[value] ?? refuse(field, `value ${value} is not known here`);
}

/** Canonical text of 4 or 16 bytes. */
export function ip(bytes: Uint8Array, field: string): string {
  if (bytes.length !== 4 && bytes.length !== 16)
    return refuse(field, `an address has 4 or 16 bytes, not ${bytes.length}`);
  return formatIp(bytes);
}

export function portNumber(value: number, field: string): number {
  return value >= 1 && value <= 65_535 ? value : refuse(field, `${value} is not a port`);
}

/** An exact address, or a range when the prefix is shorter than the address. */
export function networkAddress(
  message: NetworkAddressMessage,
  field: string,
): { readonly vip: NetworkAddress } | { readonly cidr: NetworkCidr } {
  const network = text(message.network, `${field}.network`);
  const address = ip(message.address, `${field}.address`);
  const bits = message.address.length * 8;
  const length = message.length ?? bits;
  if (length > bits) return refuse(`${field}.length`, `${length} is over ${bits}`);
  if (length === bits) return { vip: { network, ip: address } };
  return { cidr: { network, cidr: formatCidr(rangeOf(message.address, length)) } };
}

/** Host bits are cleared, IPv4-mapped IPv6 becomes IPv4 as everywhere else. */
export function rangeOf(address: Uint8Array, length: number): { readonly bytes: Uint8Array; readonly length: number } {
  const isMapped = address.length === 16 && length >= 96 && formatIp(address).includes('.');
  const bytes = isMapped ? address.subarray(12) : address;
  const prefix = isMapped ? length - 96 : length;
  return { bytes: bytes.map((byte, i) => byte & maskByte(prefix - i * 8)), length: prefix };
}

function maskByte(bitsLeft: number): number {
  return bitsLeft <= 0 ? 0 : bitsLeft >= 8 ? 0xff : (0xff00 >> bitsLeft) & 0xff;
}

export function gatewayAddress(message: GatewayAddressMessage, field: string): GatewayAddress {
  const hbonePort =
    message.hboneMtlsPort === 0 ? DEFAULT_HBONE_PORT : portNumber(message.hboneMtlsPort, `${field}.hbone_mtls_port`);
  const { destination } = message;
  switch (destination.case) {
    case 'address': {
      const network = text(destination.value.network, `${field}.network`);
      return { kind: 'address', network, ip: ip(destination.value.address, `${field}.address`), hbonePort };
    }
    case 'hostname': {
      const namespace = segment(destination.value.namespace, `${field}.namespace`);
      return {
        kind: 'hostname',
        namespace,
        hostname: required(destination.value.hostname, `${field}.hostname`),
        hbonePort,
      };
    }
    case undefined:
      return refuse(field, 'has no destination');
  }
}

/**
 * Service port → target port; a later entry for the same port wins (TCP and UDP of one number come as two). With
 * `isZeroKept`, target 0 is kept: each endpoint has its own number; without, such an entry says nothing.
 */
export function portMap(ports: readonly Port[], field: string, isZeroKept: boolean): ReadonlyMap<number, number> {
  const map = new Map<number, number>();
  for (const [i, { servicePort, targetPort }] of ports.entries()) {
    if (i >= MAX_ITEMS) refuse(field, `has over ${MAX_ITEMS} items`);
    if (targetPort === 0 && !isZeroKept) continue;
    const key = portNumber(servicePort, `${field}[${i}].service_port`);
    map.set(key, targetPort === 0 ? 0 : portNumber(targetPort, `${field}[${i}].target_port`));
  }
  return map;
}
