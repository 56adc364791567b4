/** Services by exact VIP, CIDR VIP, host name and `namespace/hostname`, with visibility and namespace preference. */
import { CidrMap } from '../base/cidr-map.ts';
import { type Cidr, ipBytes, parseCidr } from '../base/ip.ts';
import { append, detach } from '../base/multimap.ts';
import { type Service, serviceKey } from './workload.ts';

const NOBODY: readonly Service[] = [];

/** `clientNamespace` absent = the asker is no pod, and sees everything. */
export class ServiceIndex {
  readonly #byKey = new Map<string, Service>();
  readonly #byHostname = new Map<string, Service[]>();
  /** network → VIP → services, one per namespace. */
  readonly #byVip = new Map<string, Map<string, Service[]>>();
  readonly #byCidr = new Map<string, CidrMap<Service>>();

  get size(): number {
    return this.#byKey.size;
  }

  /** In the order they were told. */
  all(): Iterable<Service> {
    return this.#byKey.values();
  }

  /** `key` is `namespace/hostname`. */
  byKey(key: string): Service | undefined {
    return this.#byKey.get(key);
  }

  byHostname(hostname: string, clientNamespace?: string): Service | undefined {
    return preferred(this.#byHostname.get(hostname) ?? NOBODY, clientNamespace);
  }

  /** All that the client may see under one host name, one per namespace. */
  namesakes(hostname: string, clientNamespace: string): readonly Service[] {
    const services = this.#byHostname.get(hostname) ?? NOBODY;
    return services.filter(({ visibility, namespace }) => visibility === 'Public' || namespace === clientNamespace);
  }

  byVip(network: string, ip: string, clientNamespace?: string): Service | undefined {
    return preferred(this.#byVip.get(network)?.get(ip) ?? NOBODY, clientNamespace);
  }

  /** Own namespace first, then the longest prefix, then the canonical one. Exact VIPs are not considered. */
  byCidr(network: string, ip: string, clientNamespace?: string): Service | undefined {
    const bytes = ipBytes(ip);
    const ranges = this.#byCidr.get(network);
    if (bytes === undefined || ranges === undefined) return undefined;
    const best = [...ranges.matches(bytes)].flatMap(({ values }) => preferred(values, clientNamespace) ?? []);
    return best.find((service) => service.namespace === clientNamespace) ?? best[0];
  }

  /** In place of the record with its key, if there is one. */
  set(service: Service): void {
    const key = serviceKey(service);
    this.delete(key);
    this.#byKey.set(key, service);
    append(this.#byHostname, service.hostname, service);
    for (const { network, ip } of service.vips) {
      const vips = this.#byVip.get(network) ?? new Map<string, Service[]>();
      this.#byVip.set(network, vips);
      append(vips, ip, service);
    }
    for (const { network, range } of rangesOf(service)) {
      const ranges = this.#byCidr.get(network) ?? new CidrMap<Service>();
      this.#byCidr.set(network, ranges);
      ranges.add(range, service);
    }
  }

  delete(key: string): void {
    const service = this.#byKey.get(key);
    if (service === undefined) return;
    this.#byKey.delete(key);
    detach(this.#byHostname, service.hostname, service);
    for (const { network, ip } of service.vips) {
      const vips = this.#byVip.get(network);
      if (vips === undefined) continue;
      detach(vips, ip, service);
      if (vips.size === 0) this.#byVip.delete(network);
    }
    for (const { network, range } of rangesOf(service)) {
      const ranges = this.#byCidr.get(network);
      ranges?.delete(range, service);
      if (ranges?.isEmpty === true) this.#byCidr.delete(network);
    }
  }
}

/** Ranges that do not parse match nothing; decoders refuse them before. */
function rangesOf(service: Service): { readonly network: string; readonly range: Cidr }[] {
  return service.cidrVips.flatMap(({ network, cidr }) => {
    const range = parseCidr(cidr);
    return range === undefined ? [] : [{ network, range }];
  });
}

/** The visible candidate a client means: one of its own namespace, of those and of others a canonical one, else the first. */
function preferred(candidates: readonly Service[], clientNamespace: string | undefined): Service | undefined {
  const rank = ({ namespace, canonical }: Service): number =>
    (namespace === clientNamespace ? 2 : 0) + Number(canonical);
  let best: Service | undefined;
  for (const service of candidates) {
    const { namespace, visibility } = service;
    if (visibility === 'Namespace' && clientNamespace !== undefined && namespace !== clientNamespace) continue;
    if (best === undefined || rank(service) > rank(best)) best = service;
  }
  return best;
}
