/**
 * A text that is dear to make, for whoever asks: those who ask while it is being made share the next one. The stats port is
 * open to the network, and the thread that renders its metrics decides over connections, too.
 */
import { type Clock, delay } from '../../base/clock.ts';

/** After each making others have the thread for so many times as long as it took. */
const REST = 4;
const MAX_REST_MS = 2_000;

export class SharedText<T> {
  readonly #make: () => Promise<T>;
  readonly #clock: Clock;
  /** Asked for and not begun: it will be as of a moment after everyone's question. */
  #next: Promise<T> | undefined;
  #rested: Promise<void> = Promise.resolve();

  constructor(make: () => Promise<T>, clock: Clock) {
    this.#make = make;
    this.#clock = clock;
  }

  async get(): Promise<T> {
    this.#next ??= this.#makeNext();
    return await this.#next;
  }

  async #makeNext(): Promise<T> {
    await this.#rested;
    this.#next = undefined;
    const rested = Promise.withResolvers<void>();
    this.#rested = rested.promise;
    const startedMs = this.#clock.monotonicMs();
    try {
      return await this.#make();
    } finally {
      const tookMs = this.#clock.monotonicMs() - startedMs;
      void delay(this.#clock, Math.min(REST * tookMs, MAX_REST_MS)).then(rested.resolve);
    }
  }
}
