/** When a certificate is renewed and when a failed renewal is tried again, as pure numbers. */
import { type BackoffPolicy, backoffMs } from '../base/backoff.ts';
import type { Random } from '../base/random.ts';

export interface Validity {
  /** Unix milliseconds, both inclusive. */
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
}

/** Share by which the renewal time varies, so that pods started together do not renew together. */
const RENEWAL_JITTER = 0.1;
const RETRY: BackoffPolicy = { firstMs: 1_000, maxMs: 150_000, jitter: 0.2 };
/** Connections fail for want of the certificate: the CA is asked more often than while nobody misses it. */
const RETRY_MISSED: BackoffPolicy = { firstMs: 1_000, maxMs: 15_000, jitter: 0.2 };
const MIN_RETRY_MS = 1_000;

/** Valid to its last second. */
export function isUsable(validity: Validity, wallMs: number): boolean {
  return wallMs <= validity.notAfterMs;
}

/** Wall time of the renewal: half of the lifetime, ±10 %. */
export function renewalDueMs({ notBeforeMs, notAfterMs }: Validity, random: Random): number {
  const share = 0.5 * (1 - RENEWAL_JITTER + 2 * RENEWAL_JITTER * random.next());
  return notBeforeMs + (notAfterMs - notBeforeMs) * share;
}

export interface Need {
  /** What is left of the certificate that is held; zero and less: none is valid. */
  readonly leftMs: number;
  /** A handshake has wanted it. */
  readonly isMissed: boolean;
}

/**
 * Delay before try number `attempt` (0 = the first retry). While a certificate is valid it is at most half of what is left
 * of it, so that tries come closer together as the end comes near.
 */
export function retryDelayMs(attempt: number, { leftMs, isMissed }: Need, random: Random): number {
  if (leftMs <= 0) return backoffMs(isMissed ? RETRY_MISSED : RETRY, attempt, random);
  const delayMs = Math.min(backoffMs(RETRY, attempt, random), RETRY.maxMs);
  return Math.max(MIN_RETRY_MS, Math.min(delayMs, leftMs / 2));
}
