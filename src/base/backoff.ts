/** Delays that double, as pure numbers with an upper bound; those of retries with symmetric jitter. */
import type { Random } from './random.ts';

export interface Doubling {
  readonly firstMs: number;
  readonly maxMs: number;
}

export interface BackoffPolicy extends Doubling {
  /** Share of the delay that varies, 0..1: 0.2 means ±20 %. */
  readonly jitter: number;
}

/** Delay before retry number `attempt` (0 = the first retry), milliseconds. */
export function backoffMs(policy: BackoffPolicy, attempt: number, random: Random): number {
  const base = doubledMs(policy, attempt);
  return base * (1 - policy.jitter + 2 * policy.jitter * random.next());
}

/** The first delay, doubled `times` times. */
export function doubledMs({ firstMs, maxMs }: Doubling, times: number): number {
  return Math.min(maxMs, firstMs * 2 ** Math.min(times, 30));
}
