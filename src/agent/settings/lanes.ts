/** Whether greedy pods get threads of their own, and from when on a pod is greedy. */
import type { LaneLimits } from '../../model/lane.ts';
import type { SettingsReader } from './reader.ts';

export interface LaneSettings {
  /** Absent: every pod shares threads with all others, whatever it uses. */
  readonly greedyLane: (LaneLimits & { readonly heapMib: number }) | undefined;
}

/** What lanes need. */
export interface LaneGround {
  readonly workers: number;
  readonly workerHeapMib: number;
  readonly isFair: boolean;
  readonly isReusePort: boolean;
}

const GREEDY_LANE = { env: 'CULVERT_GREEDY_LANE' } as const;
const STAY = { env: 'CULVERT_GREEDY_LANE_STAY' } as const;
/** Of one core. A neighbour that waits for the rest of turns of such a pod has twice the latency, and few modest ones use as much. */
const STANDARD = '25%';
/** Heap of a worker of the greedy lane, for that of one of the other. */
export const LANE_HEAP_PART = 0.25;
const MIN_HEAP_MIB = 32;

export function laneSettings(read: SettingsReader, ground: LaneGround): LaneSettings {
  const modestForMs = read.durationMs(STAY, 30_000, { minMs: 1_000, maxMs: 3_600_000 });
  const text = read.text(GREEDY_LANE, STANDARD).trim();
  if (text === 'off') return { greedyLane: undefined };
  const [, digits] = /^(\d{1,3})%$/.exec(text) ?? [];
  const percent = Number(digits);
  if (!(percent >= 1 && percent <= 100)) {
    read.refuse(GREEDY_LANE, 'must be off, or the share of a core from which a pod is greedy, from 1% to 100%');
    return { greedyLane: undefined };
  }
  const lack = lackOf(ground);
  if (lack === undefined) {
    const heapMib = Math.max(MIN_HEAP_MIB, Math.trunc(ground.workerHeapMib * LANE_HEAP_PART));
    return { greedyLane: { greedyShare: percent / 100, modestForMs, heapMib } };
  }
  if (read.isSet(GREEDY_LANE)) read.refuse(GREEDY_LANE, `must be off ${lack}`);
  return { greedyLane: undefined };
}

function lackOf({ workers, isFair, isReusePort }: LaneGround): string | undefined {
  if (workers === 0) return 'while there are no data-plane threads';
  if (!isFair) return 'while CULVERT_FAIR_TURNS is false: nobody waits for turns then';
  if (!isReusePort) return 'while INPOD_PORT_REUSE is false: threads could not share ports';
  return undefined;
}
