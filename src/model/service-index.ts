/** Services by exact VIP, CIDR VIP, host name and `namespace/hostname`, with visibility and namespace preference. */
import { CidrMap } from '../base/cidr-map.ts';
import { type Cidr, ipBytes, parseCidr } from '../base/ip.ts';
import { append } from '../base/multimap.ts';
import { type Service, serviceKey } from './workload.ts';

/** Immutable. `clientNamespace` absent = the asker is no pod, and sees everything. */
export class ServiceIndex {
  readonly #byKey = new Map<string, Service>();
  readonly #byHostname = new Map<string, Service[]>();
  /** network → VIP → services, one per namespace. */
  readonly #byVip = new Map<string, Map<string, Service[]>>();
  readonly #byCidr = new Map<string, CidrMap<Service>>();

  constructor(services: Iterable<Service>) {
    for (const service of services) this.#byKey.set(serviceKey(service), service);
    const ranges = new Map<string, (readonly [Cidr, Service])[]>();
    for (const service of this.#byKey.values()) {
      append(this.#byHostname, service.hostname, service);
      this.#addVips(service);
      for (const { network, cidr } of service.cidrVips) {
        const range = parseCidr(cidr);
        if (range !== undefined) append(ranges, network, [range, service] as const);
      }
    }
    for (const [network, entries] of ranges) this.#byCidr.set(network, new CidrMap(entries));
  }

  all(): Iterable<Service> {
    return this.#byKey.values();
  }

  /** `key` is `namespace/hostname`. */
  byKey(key: string): Service | undefined {
    return this.#byKey.get(key);
  }

  byHostname(hostname: string, clientNamespace?: string): Service | undefined {
    return preferred(this.#byHostname.get(hostname) ?? [], clientNamespace);
  }

  byVip(network: string, ip: string, clientNamespace?: string): Service | undefined {
    return preferred(this.#byVip.get(network)?.get(ip) ?? [], clientNamespace);
  }

  /** Own namespace first, then the longest prefix, then the canonical one. Exact VIPs are not considered. */
  byCidr(network: string, ip: string, clientNamespace?: string): Service | undefined {
    const bytes = ipBytes(ip);
    const ranges = this.#byCidr.get(network);
    if (bytes === undefined || ranges === undefined) return undefined;
    const best = [...ranges.matches(bytes)].flatMap(({ values }) => preferred(values, clientNamespace) ?? []);
    return best.find((service) => service.namespace === clientNamespace) ?? best[0];
  }

  #addVips(service: Service): void {
    for (const { network, ip } of service.vips) {
      const vips = this.#byVip.get(network) ?? new Map<string, Service[]>();
      this.#byVip.set(network, vips);
      append(vips, ip, service);
    }
  }
}

/** The visible candidate a client means: its own namespace's, else the canonical one, else the first. */
function preferred(candidates: readonly Service[], clientNamespace: string | undefined): Service | undefined {
  const visible = candidates.filter(
    ({ visibility, namespace }) =>
      visibility === 'Public' || clientNamespace === undefined || namespace === clientNamespace,
  );
  return (
    visible.find((service) => service.namespace === clientNamespace) ??
    visible.find((service) => service.canonical) ??
    visible[0]
  );
}
