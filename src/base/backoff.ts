/** Retry delays as pure numbers: exponential with full upper bound and symmetric jitter. */
import type { Random } from './random.ts';

export interface BackoffPolicy {
  readonly firstMs: number;
  readonly maxMs: number;
  /** Share of the delay that varies, 0..1: 0.2 means ±20 %. */
  readonly jitter: number;
}

/** Delay before retry number `attempt` (0 = the first retry), milliseconds. */
export function backoffMs(policy: BackoffPolicy, attempt: number, random: Random): number {
  const base = Math.min(policy.maxMs, policy.firstMs * 2 ** Math.min(attempt, 30));
  return base * (1 - policy.jitter + 2 * policy.jitter * random.next());
}
