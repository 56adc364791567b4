/** A rate limit that allows bursts. Pure: the caller says what time it is. */

/** `burst` at once, then `perSecond`. */
export interface RateLimit {
  readonly burst: number;
  readonly perSecond: number;
}

/** Full at first. */
export class TokenBucket {
  readonly #limit: RateLimit;
  #tokens: number;
  #filledMs: number;

  constructor(limit: RateLimit, nowMs: number) {
    this.#limit = limit;
    this.#tokens = limit.burst;
    this.#filledMs = nowMs;
  }

  /** False when there were not so many left: then all are kept. */
  take(nowMs: number, tokens = 1): boolean {
    this.give(0, nowMs);
    if (this.#tokens < tokens) return false;
    this.#tokens -= tokens;
    return true;
  }

  /** Whether `take` would succeed. */
  has(nowMs: number): boolean {
    this.give(0, nowMs);
    return this.#tokens >= 1;
  }

  /** Adds tokens, up to the burst. */
  give(tokens: number, nowMs: number): void {
    const earned = tokens + ((nowMs - this.#filledMs) / 1_000) * this.#limit.perSecond;
    this.#tokens = Math.min(this.#limit.burst, this.#tokens + earned);
    this.#filledMs = nowMs;
  }
}
