/** Who waits for an answer of the control plane, by demanded key. */
import { MeshError } from '../base/errors.ts';

/** Keys waited for at a time. */
const MAX_KEYS = 10_000;

interface Waiting {
  waiters: number;
  readonly answered: Promise<void>;
  readonly resolve: () => void;
}

export class Demands {
  readonly #byKey = new Map<string, Waiting>();

  get size(): number {
    return this.#byKey.size;
  }

  has(key: string): boolean {
    return this.#byKey.has(key);
  }

  /** False when `signal` aborted first. Rejects with `CV-LIMIT` when too many keys wait already. */
  async wait(key: string, signal: AbortSignal, isLast: () => void): Promise<boolean> {
    const waiting = this.#join(key);
    const aborted = Promise.withResolvers<boolean>();
    const abort = (): void => aborted.resolve(false);
    signal.addEventListener('abort', abort, { once: true });
    if (signal.aborted) abort();
    try {
      return await Promise.race([waiting.answered.then(() => true), aborted.promise]);
    } finally {
      signal.removeEventListener('abort', abort);
      waiting.waiters -= 1;
      if (waiting.waiters === 0 && this.#byKey.get(key) === waiting) {
        this.#byKey.delete(key);
        isLast();
      }
    }
  }

  release(keys: readonly string[]): void {
    for (const key of keys) {
      this.#byKey.get(key)?.resolve();
      this.#byKey.delete(key);
    }
  }

  #join(key: string): Waiting {
    const known = this.#byKey.get(key);
    if (known !== undefined) {
      known.waiters += 1;
      return known;
    }
    if (this.#byKey.size >= MAX_KEYS)
      throw new MeshError('CV-LIMIT', `${MAX_KEYS} look-ups wait for the control plane`);
    const { promise: answered, resolve } = Promise.withResolvers<void>();
    const waiting = { waiters: 1, answered, resolve };
    this.#byKey.set(key, waiting);
    return waiting;
  }
}
