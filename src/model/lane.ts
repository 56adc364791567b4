/**
 * Which threads take the new connections of a pod. All pods share the common lane; one that keeps others waiting with what it
 * uses, or that peers attack, gets the greedy lane, whose threads have a lower priority, until it has been modest and at peace for
 * a while. Pure.
 */

export type Lane = 'common' | 'greedy';

export interface LaneLimits {
  /** Of one core, over all threads: who uses so much while others wait is greedy. */
  readonly greedyShare: number;
  /** How long it has to be modest before it comes back; each further time twice as long, up to `MOST_STAYS` times that. */
  readonly modestForMs: number;
}

/** What a pod used of all event loops since the last look. */
export interface LoopUse {
  /** Of one core: 0.5 is half of it. */
  readonly share: number;
  /** How often its turn was over while others wanted theirs. */
  readonly heldPerSecond: number;
}

export interface LaneState {
  readonly lane: Lane;
  /** Since when its use speaks for the other lane. */
  readonly otherSinceMs: number | undefined;
  /** Since when it is in this one. */
  readonly enteredMs: number;
  /** How long it had to be modest the last time, or has to now, before it came back; 0: it was never greedy. */
  readonly penanceMs: number;
}

/** What a pod opens as it starts, or brings from the agent before this one, says nothing about what it uses. */
export const SETTLED_MS = 5_000;
/** A burst of less is nothing that two changes of lane would pay for: each costs its peers a handshake. */
export const GREEDY_FOR_MS = 2_000;
/** Less than that of what makes it greedy is modest. */
const MODEST_PART = 0.5;
/** Fewer are chance: a turn is over 5,000 times a second at most. */
const MIN_HELD_PER_SECOND = 10;
/** After as long in the common lane a pod is as good as new, too. */
export const MOST_STAYS = 30;

/** Every pod begins so. */
export function newLaneState(nowMs: number): LaneState {
  return { lane: 'common', otherSinceMs: undefined, enteredMs: nowMs, penanceMs: 0 };
}

export const NO_USE: LoopUse = { share: 0, heldPerSecond: 0 };

/** To be asked at each look, a second or so after the last one. The same object when nothing is new. */
export function nextLane(state: LaneState, use: LoopUse, nowMs: number, limits: LaneLimits): LaneState {
  if (state.penanceMs === 0 && nowMs - state.enteredMs < SETTLED_MS) return state;
  if (!speaksForOther(state, use, limits)) {
    return state.otherSinceMs === undefined ? state : { ...state, otherSinceMs: undefined };
  }
  const sinceMs = state.otherSinceMs ?? nowMs;
  const longMs = state.lane === 'common' ? GREEDY_FOR_MS : state.penanceMs;
  if (nowMs - sinceMs < longMs) return state.otherSinceMs === undefined ? { ...state, otherSinceMs: sinceMs } : state;
  const next = { otherSinceMs: undefined, enteredMs: nowMs };
  if (state.lane === 'greedy') return { ...next, lane: 'common', penanceMs: state.penanceMs };
  return { ...next, lane: 'greedy', penanceMs: penanceOf(state, nowMs, limits) };
}

/** Peers attack the pod: its neighbours need not pay for that, so it changes at once. To be told again while that goes on. */
export function attackedLane(state: LaneState, nowMs: number, limits: LaneLimits): LaneState {
  if (state.lane === 'greedy') return { ...state, otherSinceMs: undefined };
  return { lane: 'greedy', otherSinceMs: undefined, enteredMs: nowMs, penanceMs: penanceOf(state, nowMs, limits) };
}

function speaksForOther({ lane }: LaneState, use: LoopUse, { greedyShare }: LaneLimits): boolean {
  if (lane === 'greedy') return use.share < greedyShare * MODEST_PART;
  return use.share >= greedyShare && use.heldPerSecond >= MIN_HELD_PER_SECOND;
}

function penanceOf({ penanceMs, enteredMs }: LaneState, nowMs: number, { modestForMs }: LaneLimits): number {
  const mostMs = modestForMs * MOST_STAYS;
  return penanceMs === 0 || nowMs - enteredMs >= mostMs ? modestForMs : Math.min(2 * penanceMs, mostMs);
}
