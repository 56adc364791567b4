/** Says which pods a thread works for, look by look: those of which it would matter. */
import type { LoopUse } from '../../model/lane.ts';
import type { WorkloadUse } from '../../telemetry/workload-use.ts';

export interface BusyPod extends LoopUse {
  readonly uid: string;
}

/** Of one core. Less makes nobody greedy, whatever the settings. */
const LEAST_SHARE = 0.005;

type Totals = Pick<WorkloadUse, 'podUid' | 'loopSeconds' | 'heldTurns'>;

export class BusyPods {
  #nowMs: number;
  #former = new Map<string, Totals>();
  #wasSaid = false;

  constructor(nowMs: number) {
    this.#nowMs = nowMs;
  }

  /** Since the last look; `undefined` when nobody is busy and nobody was. A pod may be there twice. */
  look(uses: readonly Totals[], nowMs: number): readonly BusyPod[] | undefined {
    const seconds = (nowMs - this.#nowMs) / 1_000;
    const former = this.#former;
    this.#nowMs = nowMs;
    this.#former = new Map(
      [...Map.groupBy(uses, ({ podUid }) => podUid)].map(([uid, same]) => [uid, sumOf(uid, same)]),
    );
    const busy = [...this.#former.values()]
      .map((now) => rateOf(former.get(now.podUid), now, seconds))
      .filter(({ share }) => share >= LEAST_SHARE);
    const isNews = busy.length > 0 || this.#wasSaid;
    this.#wasSaid = busy.length > 0;
    return isNews ? busy : undefined;
  }
}

function sumOf(podUid: string, uses: readonly Totals[]): Totals {
  const total = (field: 'loopSeconds' | 'heldTurns'): number => uses.reduce((sum, use) => sum + use[field], 0);
  return { podUid, loopSeconds: total('loopSeconds'), heldTurns: total('heldTurns') };
}

/** One whose totals went back is another by the same name. */
function rateOf(before: Totals | undefined, now: Totals, seconds: number): BusyPod {
  const rate = (field: 'loopSeconds' | 'heldTurns'): number =>
    seconds > 0 ? Math.max(0, now[field] - (before?.[field] ?? 0)) / seconds : 0;
  return { uid: now.podUid, share: rate('loopSeconds'), heldPerSecond: rate('heldTurns') };
}
