/** Which DNS queries of a captured pod the mesh answers, and with which addresses. */
import { ipFamily } from '../base/ip.ts';
import type { Random } from '../base/random.ts';
import { dnsAliases, hostnamesFor } from './dns-names.ts';
import { workloadLabels } from './labels.ts';
import type { MeshIndex } from './mesh-index.ts';
import type { DnsQuestion, DnsVerdict } from './verdict.ts';
import type { Service, Workload } from './workload.ts';

export interface DnsSettings {
  /** `CLUSTER_DOMAIN`. */
  readonly clusterDomain: string;
  /** `PREFERED_SERVICE_NAMESPACE`: whose services win over other foreign ones with the same host name. */
  readonly preferredNamespace?: string | undefined;
  /** Off: names of the mesh have no IPv6 addresses. */
  readonly isIpv6Enabled: boolean;
}

/** All that fit into the largest message, and more. */
const MAX_ADDRESSES = 4_096;

interface Match {
  readonly service: Service;
  /** Labels of the asked name that have the addresses, when the answer begins with a CNAME to them. */
  readonly cnameLabels?: number | undefined;
}

export function dnsVerdict(
  index: MeshIndex,
  source: Workload,
  question: DnsQuestion,
  { settings, random }: { readonly settings: DnsSettings; readonly random: Random },
): DnsVerdict {
  const { type } = question;
  const { pod, namespace, canonicalName, canonicalRevision } = workloadLabels(source);
  const client = { pod, namespace, canonicalName, canonicalRevision };
  const match = type === 'other' ? undefined : findService(index, source, question.name, settings);
  if (type === 'other' || match === undefined) return { kind: 'forward', client };
  const { service, cnameLabels } = match;
  if (!hasFamily(service, type, settings))
    return { kind: 'answer', client, result: 'service does not support this record type', addresses: [] };
  const addresses = shuffled(addressesOf(index, source, service, type), random).slice(0, MAX_ADDRESSES);
  if (addresses.length === 0) return { kind: 'answer', client, result: 'no records', addresses };
  const cname = cnameLabels === undefined ? undefined : question.name.split('.').slice(0, cnameLabels).join('.');
  return { kind: 'answer', client, result: 'success', addresses, ...(cname !== undefined && { cname }) };
}

/** The order of aliases comes before how specific a wildcard is. */
function findService(index: MeshIndex, source: Workload, asked: string, settings: DnsSettings): Match | undefined {
  const { namespace } = source;
  for (const { name, strippedLabels } of dnsAliases(asked.toLowerCase(), namespace, settings.clusterDomain)) {
    for (const hostname of hostnamesFor(name)) {
      const known = index.services.namesakes(hostname, namespace).filter((service) => isAnswerable(service, settings));
      const service = preferred(known, namespace, settings.preferredNamespace);
      // A CNAME to a name below a wildcard broke resolvers (istio 1.29): the asked name has the addresses then.
      const isWildcard = hostname.startsWith('*.');
      if (service !== undefined) return { service, cnameLabels: isWildcard ? undefined : strippedLabels };
    }
  }
  return undefined;
}

/** Has an address of its own, or is a headless service of Kubernetes. The rest is for the DNS of the outside world. */
function isAnswerable({ vips, hostname }: Service, { clusterDomain }: DnsSettings): boolean {
  return vips.length > 0 || hostname.endsWith(`.svc.${clusterDomain}`);
}

/** As for addresses, with one more rank. */
function preferred(
  services: readonly Service[],
  clientNamespace: string,
  preferredNamespace: string | undefined,
): Service | undefined {
  return (
    services.find(({ namespace }) => namespace === clientNamespace) ??
    services.findLast(({ canonical }) => canonical) ??
    services.find(({ namespace }) => namespace === preferredNamespace) ??
    services[0]
  );
}

/** Endpoints may be dual-stack behind a service that is not. */
function hasFamily({ ipFamilies }: Service, type: 'A' | 'AAAA', { isIpv6Enabled }: DnsSettings): boolean {
  return type === 'A' ? ipFamilies !== 'IPv6' : ipFamilies !== 'IPv4' && isIpv6Enabled;
}

function addressesOf(index: MeshIndex, source: Workload, service: Service, type: 'A' | 'AAAA'): string[] {
  const isWanted = (ip: string): boolean => ipFamily(ip) === (type === 'A' ? 4 : 6);
  if (service.vips.length > 0) {
    return service.vips.filter(({ network, ip }) => network === source.network && isWanted(ip)).map(({ ip }) => ip);
  }
  return index.endpoints(service).flatMap(({ ips }) => ips.find(isWanted) ?? []);
}

/** Clients take the first: a new order each time spreads them. Fisher and Yates. */
function shuffled(addresses: string[], random: Random): string[] {
  for (let last = addresses.length - 1; last > 0; last--) {
    const other = Math.floor(random.next() * (last + 1));
    const moved = addresses[other] ?? '';
    addresses[other] = addresses[last] ?? '';
    addresses[last] = moved;
  }
  return addresses;
}
