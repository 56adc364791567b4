/** Runs at most so many tasks at a time; the others wait in order. The queue is bounded by its callers: one task per pod. */
export class Limiter {
  readonly #waiting: (() => void)[] = [];
  #free: number;

  constructor(maxRunning: number) {
    this.#free = maxRunning;
  }

  async run<T>(task: () => Promise<T>): Promise<T> {
    if (this.#free > 0) this.#free -= 1;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    try {
      return await task();
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#free += 1;
      else next();
    }
  }
}
