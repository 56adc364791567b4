/** Log time stamps: RFC 3339, UTC, microseconds. */
import type { Clock } from '../base/clock.ts';

/** Drift between both clocks at which the wall clock wins; steps by NTP are larger, rounding is smaller. */
const RESYNC_MS = 2;

/**
 * Wall time with microseconds: the wall clock gives the millisecond, the monotonic one what lies between, so that lines
 * of one thread never go back unless the wall clock was set back.
 */
export class Timestamps {
  readonly #clock: Clock;
  #offsetMs: number;
  #second = Number.NaN;
  #secondText = '';

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#offsetMs = clock.wallMs() - clock.monotonicMs();
  }

  now(): string {
    const wallMs = this.#clock.wallMs();
    const monotonicMs = this.#clock.monotonicMs();
    if (Math.abs(this.#offsetMs + monotonicMs - wallMs) > RESYNC_MS) this.#offsetMs = wallMs - monotonicMs;
    const micros = Math.round((this.#offsetMs + monotonicMs) * 1000);
    const second = Math.floor(micros / 1_000_000);
    if (second !== this.#second) {
      this.#second = second;
      this.#secondText = rfc3339(second * 1000).slice(0, -1);
    }
    return `${this.#secondText}.${String(micros - second * 1_000_000).padStart(6, '0')}Z`;
  }
}

/** `2026-03-02T08:15:30Z` of Unix milliseconds, cut to the second. */
export function rfc3339(unixMs: number): string {
  return Temporal.Instant.fromEpochMilliseconds(Math.floor(unixMs)).toString({ smallestUnit: 'second' });
}
