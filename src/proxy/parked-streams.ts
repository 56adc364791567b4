/** Suspended streams of one pod whose clients are to come back, by their tokens. */
import { BoundedMap } from '../base/bounded-map.ts';
import type { Clock } from '../base/clock.ts';
import type { MeshError } from '../base/errors.ts';
import type { ResumableTunnel } from './resumable-tunnel.ts';

/** Clients that are waited for because they came before their stream did. */
const MAX_WAITING = 1_024;
/** Streams that may not go on, and those whose application has gone, remembered for clients that ask. */
const MAX_REFUSED = 1_024;
const MAX_BURIED = 1_024;

export class ParkedStreams {
  readonly #byToken = new Map<string, ResumableTunnel>();
  readonly #refused = new BoundedMap<string, MeshError>(MAX_REFUSED);
  readonly #buried = new BoundedMap<string, ResumableTunnel>(MAX_BURIED);
  /** By token. */
  readonly #waiting = new Map<string, Set<() => void>>();
  #waitingCount = 0;
  #isLeft = false;

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
  leave(): void {
    this.#isLeft = true;
    for (const token of [...this.#waiting.keys()]) this.#wake(token);
  }

  reopen(): void {
    this.#isLeft = false;
  }

  #wake(token: string): void {
    for (const wake of this.#waiting.get(token) ?? []) wake();
  }

  delete(token: string): void {
    this.#byToken.delete(token);
    this.#buried.delete(token);
  }

  /** Its application has gone: its client is to hear of that, as it would have. */
  bury(token: string, tunnel: ResumableTunnel): void {
    this.#byToken.delete(token);
    this.#buried.set(token, tunnel);
  }

  /** Asked for by the whole token, so the time of an answer tells nothing of others. */
  get(token: string): ResumableTunnel | undefined {
    return this.#byToken.get(token) ?? this.#buried.get(token);
  }

  /** Resolves when something is known of that stream, or the time is over; with `false` at once when it is not worth it. */
  async change(token: string, clock: Clock, withinMs: number): Promise<boolean> {
    if (this.#isLeft || this.#waitingCount >= MAX_WAITING) return false;
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
