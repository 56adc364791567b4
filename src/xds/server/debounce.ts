/** Several changes in a row become one push: after a quiet while, or after the longest wait. */
import type { Clock } from '../../base/clock.ts';

export interface DebounceSettings {
  readonly quietMs: number;
  readonly maxMs: number;
}

export class Debounce implements Disposable {
  readonly #clock: Clock;
  readonly #settings: DebounceSettings;
  readonly #fire: () => void;
  #timer: Disposable | undefined;
  #firstMs = 0;

  constructor(clock: Clock, settings: DebounceSettings, fire: () => void) {
    this.#clock = clock;
    this.#settings = settings;
    this.#fire = fire;
  }

  touch(): void {
    const nowMs = this.#clock.monotonicMs();
    if (this.#timer === undefined) this.#firstMs = nowMs;
    this.#timer?.[Symbol.dispose]();
    const leftMs = this.#firstMs + this.#settings.maxMs - nowMs;
    this.#timer = this.#clock.after(Math.max(0, Math.min(this.#settings.quietMs, leftMs)), () => {
      this.#timer = undefined;
      this.#fire();
    });
  }

  [Symbol.dispose](): void {
    this.#timer?.[Symbol.dispose]();
    this.#timer = undefined;
  }
}
