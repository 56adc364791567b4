/** Suspended streams of one pod whose clients are to come back, by their tokens. */
import { BoundedMap } from '../base/bounded-map.ts';
import type { Clock } from '../base/clock.ts';
import type { MeshError } from '../base/errors.ts';
import type { ResumableTunnel } from './resumable-tunnel.ts';

/** Clients that are waited for because they came before their stream did. */
const MAX_WAITING = 1_024;
/** Streams that may not go on, remembered for clients that ask. */
const MAX_REFUSED = 1_024;

export class ParkedStreams {
  /** Of the clock of the pod: until then the process before this one may hand over streams. */
  expectedUntilMs = 0;
  readonly #byToken = new Map<string, ResumableTunnel>();
  readonly #refused = new BoundedMap<string, MeshError>(MAX_REFUSED);
  readonly #waiting = new Set<() => void>();

  /** Idempotent. */
  add(token: string, tunnel: ResumableTunnel): void {
    this.#byToken.set(token, tunnel);
    this.#wake();
  }

  /** The client of that stream is told `error` when it comes. */
  refuse(token: string, error: MeshError): void {
    this.#refused.set(token, error);
    this.#wake();
  }

  throwIfRefused(token: string): void {
    const error = this.#refused.get(token);
    if (error !== undefined) throw error;
  }

  #wake(): void {
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
