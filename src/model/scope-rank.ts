/** How near an endpoint is to its client, by the scopes a service prefers. */
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
        ? networkFirstRank(preferences, source, endpoint)
        : leadingMatches(preferences, 0, source, endpoint);
  }
}

/** Rank of an endpoint that matches all. */
export function highestRank({ mode, routingPreferences }: LoadBalancer): number {
  if (mode !== 'Failover') return 0;
  return routingPreferences[0] === 'Network' ? 2 * routingPreferences.length - 1 : routingPreferences.length;
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
function networkFirstRank(preferences: readonly Scope[], source: Workload, endpoint: Workload): number {
  const isLocal = source.network === endpoint.network;
  return (isLocal ? preferences.length : 0) + leadingMatches(preferences, 1, source, endpoint);
}

/** How many from the position `start` on match, up to the first that does not. */
function leadingMatches(preferences: readonly Scope[], start: number, source: Workload, endpoint: Workload): number {
  const firstMiss = preferences.findIndex((scope, at) => at >= start && !isSame(scope, source, endpoint));
  return (firstMiss < 0 ? preferences.length : firstMiss) - start;
}

function isSame(scope: Scope, a: Workload, b: Workload): boolean {
  return scopeValue(scope, a) === scopeValue(scope, b);
}
