/** Keeps a log from repeating itself: a line goes out when it says something new, and not more often than its period. */
import type { Clock } from './clock.ts';

export class ChangeLog {
  readonly #clock: Clock;
  readonly #periodMs: number;
  #last: string | undefined;
  #lastMs = Number.NEGATIVE_INFINITY;
  #left = 0;

  constructor(clock: Clock, periodMs: number) {
    this.#clock = clock;
    this.#periodMs = periodMs;
  }

  /** Calls `write` with the number of lines left out before, if `text` is to be logged. */
  note(text: string, write: (leftOut: number) => void): void {
    const nowMs = this.#clock.monotonicMs();
    if (text === this.#last || nowMs - this.#lastMs < this.#periodMs) {
      this.#left += 1;
      return;
    }
    write(this.#left);
    this.#last = text;
    this.#lastMs = nowMs;
    this.#left = 0;
  }

  /** The state is good again: whatever goes wrong next is new. */
  reset(): void {
    this.#last = undefined;
  }
}
