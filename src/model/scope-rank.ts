/** How near an endpoint is to its client, by the scopes a service prefers (datapath.md §4.4). */
import type { LoadBalancer, Scope, Workload } from './workload.ts';

/** Higher is nearer; `undefined` = excluded by STRICT. */
export function scopeRank(balancer: LoadBalancer, source: Workload, endpoint: Workload): number | undefined {
  const preferences = balancer.routingPreferences;
  switch (balancer.mode) {
    case 'Standard':
    case 'Passthrough':
      return 0;
    case 'Strict':
      return preferences.every((scope) => isSame(scope, source, endpoint)) ? 0 : undefined;
    case 'Failover':
      return preferences[0] === 'Network'
        ? networkFirstRank(preferences.slice(1), source, endpoint)
        : leadingMatches(preferences, source, endpoint);
  }
}

/** What a workload is in one scope. */
export function scopeValue(scope: Scope, { locality, node, clusterId, network }: Workload): string {
  switch (scope) {
    case 'Region':
      return locality.region;
    case 'Zone':
      return locality.zone;
    case 'Subzone':
      return locality.subzone;
    case 'Node':
      return node;
    case 'Cluster':
      return clusterId;
    case 'Network':
      return network;
  }
}

/** The own network outranks any number of other matches; endpoints of other networks are still ordered by the rest. */
function networkFirstRank(others: readonly Scope[], source: Workload, endpoint: Workload): number {
  const isLocal = source.network === endpoint.network;
  return (isLocal ? others.length + 1 : 0) + leadingMatches(others, source, endpoint);
}

function leadingMatches(preferences: readonly Scope[], source: Workload, endpoint: Workload): number {
  const firstMiss = preferences.findIndex((scope) => !isSame(scope, source, endpoint));
  return firstMiss < 0 ? preferences.length : firstMiss;
}

function isSame(scope: Scope, a: Workload, b: Workload): boolean {
  return scopeValue(scope, a) === scopeValue(scope, b);
}
