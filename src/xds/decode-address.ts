/** Decoders for what names a place in the mesh: addresses, ports, host names, namespaces, and gateway references. */
import { canonicalIp, formatCidr, parseCidr } from '../base/ip.ts';
import { PORTS } from '../model/ports.ts';
import { isSegment } from '../model/spiffe.ts';
import type { GatewayAddress, NetworkAddress, NetworkCidr } from '../model/workload.ts';
import { isHostname } from '../wire/hbone.ts';
import { type Decoder, fieldsOf, integer, mappingOf, type Place, quote, text, textLike } from './decode-value.ts';

export const port: Decoder<number> = integer(1, 65_535);

/** Longest namespace, service account or trust domain, characters. */
const MAX_NAME = 253;

/** Part of a SPIFFE ID: nothing that could change the shape of the identity. */
export const segment: Decoder<string> = textLike(
  (value) => isSegment(value) && value.length <= MAX_NAME,
  'a name',
  'use letters, digits, dots, dashes and underscores',
);

export const hostname: Decoder<string> = textLike(
  isHostname,
  'a host name',
  'write a DNS name such as web.shop.svc.cluster.local',
);

export const ip: Decoder<string> = (value, place) => {
  const decoded = text(value, place);
  if (decoded === undefined) return undefined;
  return (
    canonicalIp(decoded) ??
    place.refuse(`${quote(decoded)} is not an IP address`, 'write 10.0.0.1 or fd00::1, without port or prefix')
  );
};

/** `network/ip`; a leading slash is the empty network. */
export const networkAddress: Decoder<NetworkAddress> = (value, place) => {
  const parts = splitAtSlash(value, place, 'network/ip', '"/10.0.0.1" for the default network');
  if (parts === undefined) return undefined;
  const address = ip(parts.rest, place);
  return address === undefined ? undefined : { network: parts.head, ip: address };
};

/** `{network, cidr}` or `network/address/length`. */
export const networkCidr: Decoder<NetworkCidr> = (value, place) => {
  if (typeof value === 'string') {
    const parts = splitAtSlash(value, place, 'network/address/length', '"/10.0.0.0/8" for the default network');
    return parts && cidrOf(parts.head, parts.rest, place);
  }
  const fields = fieldsOf(value, place);
  if (fields === undefined) return undefined;
  const network = fields.or('network', text, '');
  const cidr = fields.required('cidr', text);
  fields.end();
  return cidr === undefined ? undefined : cidrOf(network, cidr, place.at('cidr'));
};

function cidrOf(network: string, cidr: string, place: Place): NetworkCidr | undefined {
  const range = parseCidr(cidr);
  return range === undefined ? refuseCidr(cidr, place) : { network, cidr: formatCidr(range) };
}

export function refuseCidr(cidr: string, place: Place): undefined {
  return place.refuse(
    `${quote(cidr)} is not an address range`,
    'write address/length with a length of 0..32 for IPv4 and 0..128 for IPv6',
  );
}

/** `{destination: "namespace/hostname" or "network/ip", hboneMtlsPort}`. */
export const gatewayAddress: Decoder<GatewayAddress> = (value, place) => {
  const fields = fieldsOf(value, place);
  if (fields === undefined) return undefined;
  const destination = fields.required('destination', destinationOf);
  const hbonePort = fields.or('hboneMtlsPort', port, PORTS.hbone);
  fields.end();
  return destination && { ...destination, hbonePort };
};

type Destination =
  | { readonly kind: 'address'; readonly network: string; readonly ip: string }
  | { readonly kind: 'hostname'; readonly namespace: string; readonly hostname: string };

const destinationOf: Decoder<Destination> = (value, place) => {
  const parts = splitAtSlash(
    value,
    place,
    'namespace/hostname or network/ip',
    '"infra/waypoint.infra.svc.cluster.local" or "/10.0.0.1"',
  );
  if (parts === undefined) return undefined;
  const address = canonicalIp(parts.rest);
  if (address !== undefined) return { kind: 'address', network: parts.head, ip: address };
  const namespace = segment(parts.head, place);
  const host = hostname(parts.rest, place);
  return namespace === undefined || host === undefined ? undefined : { kind: 'hostname', namespace, hostname: host };
};

/** `namespace/hostname`, as services are named elsewhere. */
export const serviceReference: Decoder<string> = (value, place) => {
  const parts = splitAtSlash(value, place, 'namespace/hostname', '"shop/web.shop.svc.cluster.local"');
  if (parts === undefined) return undefined;
  const namespace = segment(parts.head, place);
  const host = hostname(parts.rest, place);
  return namespace === undefined || host === undefined ? undefined : `${namespace}/${host}`;
};

/** Service port → target port. `minTarget` 0 allows "each endpoint has its own number". */
export function portMap(minTarget: 0 | 1): Decoder<ReadonlyMap<number, number>> {
  const target = integer(minTarget, 65_535);
  return (value, place) => {
    const mapping = mappingOf(value, place);
    if (mapping === undefined) return undefined;
    const ports = new Map<number, number>();
    for (const [key, item] of mapping) {
      const servicePort = portKey(key, place.atKey(key));
      const targetPort = target(item, place.at(key));
      if (servicePort === undefined || targetPort === undefined) continue;
      if (ports.has(servicePort)) place.atKey(key).refuse(`port ${servicePort} is listed twice`, 'keep one of them');
      ports.set(servicePort, targetPort);
    }
    return ports;
  };
}

function portKey(key: unknown, place: Place): number | undefined {
  const number = typeof key === 'string' && /^[1-9]\d{0,4}$/.test(key) ? Number(key) : key;
  if (typeof number === 'number' && Number.isInteger(number) && number >= 1 && number <= 65_535) return number;
  return place.refuse(`${quote(String(key))} is not a port`, 'use 1..65535');
}

function splitAtSlash(
  value: unknown,
  place: Place,
  shape: string,
  example: string,
): { readonly head: string; readonly rest: string } | undefined {
  const decoded = text(value, place);
  if (decoded === undefined) return undefined;
  const slash = decoded.indexOf('/');
  if (slash < 0) return place.refuse(`${quote(decoded)} has no slash: expected ${shape}`, `write ${example}`);
  return { head: decoded.slice(0, slash), rest: decoded.slice(slash + 1) };
}
