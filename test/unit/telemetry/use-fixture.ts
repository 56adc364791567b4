/** What a pod uses, all zero but for what a test says. */
import { sumOf, type WorkloadUse } from '../../../src/telemetry/workload-use.ts';

export function use(podUid: string, numbers: Partial<WorkloadUse>): WorkloadUse {
  return { ...sumOf(podUid, []), ...numbers };
}
