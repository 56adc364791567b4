/**
 * Values inside xDS resources, checked one by one. A throw rejects the resource, and with it the whole response; so what a user of
 * the cluster can write into an object (a label, an account, an address of a WorkloadEntry) is made harmless instead: else one
 * odd name would stop every update of the mesh.
 */
import { MeshError } from '../base/errors.ts';
import { type Cidr, cidrOf, formatCidr, formatIp } from '../base/ip.ts';
import { PORTS } from '../model/ports.ts';
import { isSegment } from '../model/spiffe.ts';
import type { GatewayAddress, NetworkAddress, NetworkCidr } from '../model/workload.ts';
import type {
  GatewayAddress as GatewayAddressMessage,
  NetworkAddress as NetworkAddressMessage,
  Port,
} from '../wire/pb/workload_pb.ts';
import { quote } from './decode-value.ts';

/** Longest text kept, UTF-16 units; host names and UIDs stay under it. */
const MAX_TEXT = 1_024;
/** Longest namespace, service account or trust domain, characters. */
const MAX_SEGMENT = 253;

export function refuse(field: string, problem: string): never {
  throw new MeshError('CV-WIRE-MALFORMED', `${field}: ${problem}`);
}

// oxlint-disable-next-line no-control-regex -- control characters are what is looked for
const CONTROL = /[\x00-\x1f\x7f-\x9f]/g;

/** For people, labels and headers: cut to a sane length, control characters replaced. */
export function text(value: string): string {
  if (value.length <= MAX_TEXT && value.search(CONTROL) < 0) return value;
  return value.slice(0, MAX_TEXT).replaceAll(CONTROL, '?');
}

/** What other resources refer to: it is kept as it is, however odd. */
export function required(value: string, field: string): string {
  return value === '' ? refuse(field, 'is empty') : value;
}

/** Part of a SPIFFE ID. One that cannot be becomes one that no certificate has: nobody can prove it, and nobody gets it. */
export function segment(value: string): string {
  if (value === '' || (isSegment(value) && value.length <= MAX_SEGMENT)) return value;
  return `${value.slice(0, MAX_SEGMENT - 1).replaceAll(/[^\x21-\x7e]/g, '?')}?`;
}

/** `namespace/rest`, each not empty. */
export function reference(value: string, field: string): string {
  const slash = value.indexOf('/');
  if (slash < 1 || slash === value.length - 1) refuse(field, `${quote(value)} is not namespace/name`);
  return value;
}

export function list<T, U>(values: readonly T[], field: string, decode: (value: T, field: string) => U): readonly U[] {
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

/** Of a rule: 0 is what no connection has. */
export function policyPort(value: number, field: string): number {
  return value <= 65_535 ? value : refuse(field, `${value} is not a port`);
}

function portNumber(value: number, field: string): number {
  return value >= 1 && value <= 65_535 ? value : refuse(field, `${value} is not a port`);
}

/** An exact address, or a range when the prefix is shorter than the address. */
export function networkAddress(
  message: NetworkAddressMessage,
  field: string,
): { readonly vip: NetworkAddress } | { readonly cidr: NetworkCidr } {
  const network = text(message.network);
  const address = ip(message.address, `${field}.address`);
  const bits = message.address.length * 8;
  if (message.length === undefined || message.length === bits) return { vip: { network, ip: address } };
  return { cidr: { network, cidr: formatCidr(range({ address: message.address, length: message.length }, field)) } };
}

/** Host bits are cleared, IPv4-mapped IPv6 becomes IPv4 as everywhere else. */
export function range({ address, length }: { address: Uint8Array; length: number }, field: string): Cidr {
  ip(address, `${field}.address`);
  return cidrOf(address, length) ?? refuse(`${field}.length`, `${length} is over ${address.length * 8}`);
}

export function gatewayAddress(message: GatewayAddressMessage, field: string): GatewayAddress {
  const hbonePort =
    message.hboneMtlsPort === 0 ? PORTS.hbone : portNumber(message.hboneMtlsPort, `${field}.hbone_mtls_port`);
  const { destination } = message;
  switch (destination.case) {
    case 'address': {
      const network = text(destination.value.network);
      return { kind: 'address', network, ip: ip(destination.value.address, `${field}.address`), hbonePort };
    }
    case 'hostname': {
      const namespace = segment(destination.value.namespace);
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
    if (targetPort === 0 && !isZeroKept) continue;
    const key = portNumber(servicePort, `${field}[${i}].service_port`);
    map.set(key, targetPort === 0 ? 0 : portNumber(targetPort, `${field}[${i}].target_port`));
  }
  return map;
}
