/** Suspended streams of one pod whose clients are to come back, by their tokens. */
import type { Clock } from '../base/clock.ts';
import type { ResumableTunnel } from './resumable-tunnel.ts';

/** Clients that are waited for because they came before their stream did. */
const MAX_WAITING = 1_024;

export class ParkedStreams {
  readonly #byToken = new Map<string, ResumableTunnel>();
  readonly #waiting = new Set<() => void>();

  /** Idempotent. */
  add(token: string, tunnel: ResumableTunnel): void {
    this.#byToken.set(token, tunnel);
    for (const wake of [...this.#waiting]) wake();
  }

  delete(token: string): void {
    this.#byToken.delete(token);
  }

  /** Asked for by the whole token, so the time of an answer tells nothing of others. */
  get(token: string): ResumableTunnel | undefined {
    return this.#byToken.get(token);
  }

  /** Resolves when a stream is parked, or the time is over. */
  async change(clock: Clock, withinMs: number): Promise<void> {
    if (this.#waiting.size >= MAX_WAITING) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    using _deadline = clock.after(withinMs, resolve);
    this.#waiting.add(resolve);
    await promise;
    this.#waiting.delete(resolve);
  }
}
