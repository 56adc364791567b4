/** What all threads of an agent hold, for the metrics. */
import { threadUsage } from '../sys/thread-usage.ts';
import type { Holdings } from '../telemetry/thread-series.ts';
import type { AgentParts } from './agent.ts';

type Parts = Pick<AgentParts, 'metrics' | 'authority' | 'certificates' | 'dataPlane' | 'pods'>;

/** From now on at each scrape. */
export function watchThreads({ metrics, authority, certificates, dataPlane, pods }: Parts): void {
  metrics.threads.watch(async () => {
    const { up, pending } = pods.counts();
    const own = {
      captured_pods: up + pending,
      tracked_connections: authority.trackedCount,
      held_certificates: certificates.expiries().length,
    };
    const threads = new Map<string, Holdings>(await dataPlane.views.holdings());
    const main = threads.get('main') ?? { ...threadUsage(), maps: {}, caches: {} };
    return threads.set('main', { ...main, maps: { ...main.maps, ...own } });
  });
}
