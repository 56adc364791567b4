/** How long things may last: draining, idle connections, the look at rules in pods. */
import { MAX_TIMER_MS, type SettingsReader } from './reader.ts';

export interface LifetimeSettings {
  /** How long open connections may finish after SIGTERM; under the pod's terminationGracePeriodSeconds. */
  readonly drainGraceMs: number;
  /** How often the rules in each pod are compared with what is wanted. */
  readonly verifyPeriodMs: number;
  readonly idleTimeoutMs: number;
  readonly halfClosedTimeoutMs: number;
  readonly maxConnectionsPerPod: number;
}

const DAY_MS = 24 * 3_600_000;
/** What is done again and again; zero would be without a pause. */
const PERIOD = { minMs: 100 } as const;

export function lifetimeSettings(read: SettingsReader): LifetimeSettings {
  const bounds = { fallback: 0, min: 0, max: Math.trunc(MAX_TIMER_MS / 1_000) };
  const graceSeconds = read.integer({ env: 'TERMINATION_GRACE_PERIOD_SECONDS' }, bounds);
  return {
    drainGraceMs: read.durationMs({ flag: 'drain', env: 'CONNECTION_TERMINATION_DEADLINE' }, drainOf(graceSeconds)),
    verifyPeriodMs: read.durationMs({ flag: 'verify-period', env: 'CULVERT_VERIFY_PERIOD' }, 1_000, PERIOD),
    idleTimeoutMs: read.durationMs({ env: 'CULVERT_IDLE_TIMEOUT' }, DAY_MS, PERIOD),
    halfClosedTimeoutMs: read.durationMs({ env: 'CULVERT_HALF_CLOSED_TIMEOUT' }, 3_600_000, PERIOD),
    maxConnectionsPerPod: read.integer(
      { env: 'CULVERT_MAX_CONNECTIONS' },
      { fallback: 50_000, min: 1, max: 10_000_000 },
    ),
  };
}

/** Leaves the last seconds of the grace period of the pod to us; 0 or none means 5 s, as in ztunnel. */
function drainOf(graceSeconds: number): number {
  if (graceSeconds === 0) return 5_000;
  return 1_000 * (graceSeconds > 10 ? graceSeconds - 5 : Math.max(graceSeconds - 1, 1));
}
