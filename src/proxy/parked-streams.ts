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
  /** By token. */
  readonly #waiting = new Map<string, Set<() => void>>();
  #waitingCount = 0;

  /** Idempotent. */
  add(token: string, tunnel: ResumableTunnel): void {
    this.#byToken.set(token, tunnel);
    this.#wake(token);
  }

  /** The client of that stream is told `error` when it comes. */
  refuse(token: string, error: MeshError): void {
    this.#refused.set(token, error);
    this.#wake(token);
  }

  throwIfRefused(token: string): void {
    const error = this.#refused.get(token);
    if (error !== undefined) throw error;
  }

  /** Streams go to the next process from now on, and so must their clients. */
  expectNoMore(): void {
    this.expectedUntilMs = 0;
    for (const token of [...this.#waiting.keys()]) this.#wake(token);
  }

  #wake(token: string): void {
    for (const wake of this.#waiting.get(token) ?? []) wake();
  }

  delete(token: string): void {
    this.#byToken.delete(token);
  }

  /** Asked for by the whole token, so the time of an answer tells nothing of others. */
  get(token: string): ResumableTunnel | undefined {
    return this.#byToken.get(token);
  }

  /** Resolves when something is known of that stream, or the time is over; with `false` at once when too many wait. */
  async change(token: string, clock: Clock, withinMs: number): Promise<boolean> {
    if (this.#waitingCount >= MAX_WAITING) return false;
    const { promise, resolve } = Promise.withResolvers<void>();
    using _deadline = clock.after(withinMs, resolve);
    const same = this.#waiting.get(token) ?? new Set();
    this.#waiting.set(token, same.add(resolve));
    this.#waitingCount += 1;
    await promise;
    this.#waitingCount -= 1;
    same.delete(resolve);
    if (same.size === 0) this.#waiting.delete(token);
    return true;
  }
}
