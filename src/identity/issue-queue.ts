/** Bounded concurrency for certificate requests; those a handshake waits for go first. */

/** Highest first: a handshake waits; a pod may need it soon; the old certificate still serves. */
const PRIORITIES = ['RealTime', 'Warmup', 'Background'] as const;

export type Priority = (typeof PRIORITIES)[number];

interface Waiting {
  readonly priority: Priority;
  readonly run: () => Promise<void>;
}

export class IssueQueue {
  readonly #concurrency: number;
  readonly #waiting: Readonly<Record<Priority, Map<string, Waiting>>> = {
    RealTime: new Map(),
    Warmup: new Map(),
    Background: new Map(),
  };
  #running = 0;

  constructor(concurrency: number) {
    this.#concurrency = concurrency;
  }

  /** Queues `run`, which must not reject. A key that already waits keeps its `run` and takes the higher of both priorities. */
  add(key: string, priority: Priority, run: () => Promise<void>): void {
    const waiting = this.#find(key);
    if (waiting !== undefined && rank(waiting.priority) <= rank(priority)) return;
    this.remove(key);
    this.#waiting[priority].set(key, { priority, run: waiting?.run ?? run });
    this.#pump();
  }

  /** Lets a waiting entry overtake all that no handshake waits for. */
  promote(key: string): void {
    const waiting = this.#find(key);
    if (waiting !== undefined) this.add(key, 'RealTime', waiting.run);
  }

  /** Takes a waiting entry out; one that runs is not stopped. */
  remove(key: string): void {
    for (const priority of PRIORITIES) this.#waiting[priority].delete(key);
  }

  #find(key: string): Waiting | undefined {
    for (const priority of PRIORITIES) {
      const waiting = this.#waiting[priority].get(key);
      if (waiting !== undefined) return waiting;
    }
    return undefined;
  }

  #pump(): void {
    while (this.#running < this.#concurrency) {
      const next = take(this.#waiting.RealTime) ?? take(this.#waiting.Warmup) ?? take(this.#waiting.Background);
      if (next === undefined) return;
      this.#running += 1;
      void next.run().finally(() => {
        this.#running -= 1;
        this.#pump();
      });
    }
  }
}

function rank(priority: Priority): number {
  return PRIORITIES.indexOf(priority);
}

/** Removes and returns the oldest entry. */
function take<T>(map: Map<string, T>): T | undefined {
  for (const [key, value] of map) {
    map.delete(key);
    return value;
  }
  return undefined;
}
