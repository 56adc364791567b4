/** `istio_on_demand_dns_total`: look-ups of endpoints known by host name, per client. Bounded. */
import { BoundedMap } from '../base/bounded-map.ts';
import type { PeerLabels } from '../model/verdict.ts';
import type { Family } from './openmetrics.ts';
import { known, sourceLabels } from './traffic-labels.ts';

/** Host names come from the mesh state, clients are the pods of this node. */
const MAX_LABEL_SETS = 10_000;

interface HostLookups {
  readonly labels: Readonly<Record<string, string>>;
  count: number;
}

/** Over the bound the set not used for longest is given up: its counter restarts from 0 when it comes back. */
export class HostLookupTable {
  readonly #sets: BoundedMap<string, HostLookups>;

  constructor(maxSets: number = MAX_LABEL_SETS) {
    this.#sets = new BoundedMap(maxSets);
  }

  count(client: PeerLabels, hostname: string): void {
    const labels = { ...sourceLabels(client, true), hostname: known(hostname) };
    const key = Object.values(labels).join('\n');
    const lookups = this.#sets.get(key);
    if (lookups !== undefined) lookups.count += 1;
    else this.#sets.set(key, { labels, count: 1 });
  }

  family(): Family {
    return {
      name: 'istio_on_demand_dns_total',
      help: 'The total number of requests that used on-demand DNS (unstable).',
      type: 'counter',
      samples: [...this.#sets.values()].map(({ labels, count }) => ({ labels, value: count })),
    };
  }
}
