/** What each pod uses, by the names that people know. */
import type { NamedUse } from '../../telemetry/workload-use.ts';
import type { AgentParts } from '../agent.ts';

/** A pod that has just left keeps its uid for a name, as does the agent's own. */
export async function namedUsage({
  dataPlane,
  pods,
}: Pick<AgentParts, 'dataPlane' | 'pods'>): Promise<readonly NamedUse[]> {
  const names = new Map(pods.statuses().map(({ pod }) => [pod.uid, pod]));
  const uses = await dataPlane.views.usage();
  const greedy = dataPlane.views.greedyPods();
  return uses.map((use) => {
    const known = names.get(use.podUid);
    return {
      ...use,
      namespace: known?.namespace ?? '',
      pod: known?.name ?? use.podUid,
      lane: greedy.has(use.podUid) ? 'greedy' : 'common',
    };
  });
}
