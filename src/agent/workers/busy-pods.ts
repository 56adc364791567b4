/** Says which pods a thread works for, look by look: those of which it would matter. */
import type { LoopUse } from '../../model/lane.ts';
import type { WorkloadUse } from '../../telemetry/workload-use.ts';

export interface BusyPod extends LoopUse {
  readonly uid: string;
}

/** Of one core. Less makes nobody greedy, whatever the settings. */
const LEAST_SHARE = 0.005;

type Totals = Pick<WorkloadUse, 'podUid' | 'loopSeconds' | 'heldTurns'>;

/** When a thread was looked at, and how much CPU it had used by then. */
export interface LookTime {
  readonly nowMs: number;
  readonly cpuMs: number;
}

export class BusyPods {
  #time: LookTime;
  #former = new Map<string, Totals>();
  #wasSaid = false;

  constructor(time: LookTime) {
    this.#time = time;
  }

  /** Since the last look; `undefined` when nobody is busy and nobody was. A pod may be there twice. */
  look(uses: readonly Totals[], time: LookTime): readonly BusyPod[] | undefined {
    const seconds = (time.nowMs - this.#time.nowMs) / 1_000;
    const cpuSeconds = (time.cpuMs - this.#time.cpuMs) / 1_000;
    const former = this.#former;
    this.#time = time;
    this.#former = new Map(
      [...Map.groupBy(uses, ({ podUid }) => podUid)].map(([uid, same]) => [uid, sumOf(uid, same)]),
    );
    const rates = [...this.#former.values()].map((now) => rateOf(former.get(now.podUid), now, seconds));
    const part = ofCpu(rates, cpuSeconds / seconds);
    const busy = rates
      .map((rate) => ({ ...rate, share: rate.share * part }))
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

/** The part of the time that pods had in which they had a CPU, too: who waits for one uses nothing. */
function ofCpu(rates: readonly BusyPod[], cpuShare: number): number {
  const all = rates.reduce((sum, { share }) => sum + share, 0);
  return all > cpuShare ? cpuShare / all : 1;
}
