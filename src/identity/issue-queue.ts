/** Bounded concurrency for certificate requests; those a handshake waits for go first (facts/operations.md §6.4). */

export type Priority = 'RealTime' | 'Warmup';

export class IssueQueue {
  readonly #concurrency: number;
  readonly #waiting: Readonly<Record<Priority, Map<string, () => Promise<void>>>> = {
    RealTime: new Map(),
    Warmup: new Map(),
  };
  #running = 0;

  constructor(concurrency: number) {
    this.#concurrency = concurrency;
  }

  /** Queues `run`, which must not reject. A key that already waits moves to the higher of both priorities. */
  add(key: string, priority: Priority, run: () => Promise<void>): void {
    if (this.#waiting.RealTime.has(key)) return;
    if (priority === 'RealTime') this.#waiting.Warmup.delete(key);
    this.#waiting[priority].set(key, run);
    this.#pump();
  }

  /** Lets a waiting Warmup entry overtake the others. */
  promote(key: string): void {
    const run = this.#waiting.Warmup.get(key);
    if (run !== undefined) this.add(key, 'RealTime', run);
  }

  /** Takes a waiting entry out; one that runs is not stopped. */
  remove(key: string): void {
    this.#waiting.RealTime.delete(key);
    this.#waiting.Warmup.delete(key);
  }

  #pump(): void {
    while (this.#running < this.#concurrency) {
      const run = take(this.#waiting.RealTime) ?? take(this.#waiting.Warmup);
      if (run === undefined) return;
      this.#running += 1;
      void run().finally(() => {
        this.#running -= 1;
        this.#pump();
      });
    }
  }
}

/** Removes and returns the oldest entry. */
function take<T>(map: Map<string, T>): T | undefined {
  for (const [key, value] of map) {
    map.delete(key);
    return value;
  }
  return undefined;
}
