/** How the connections of a pod leave for another process: a few at a time, so that each stands still for milliseconds. */
import { type Clock, delay } from '../base/clock.ts';
import type { Connection, MoveLimits } from './connection.ts';
import type { Connections } from './connections.ts';
import type { InheritedConnection } from './inheritance.ts';

/** Connections that stand still together: few at first, twice as many after each part that was quick, half after a slow one. */
const AT_ONCE = { first: 8, min: 4, max: 64 } as const;
/** From one part to the next, with all that both processes do with it. */
const QUICK_MS = 15;
const LONG_MS = 40;
/** How long their bytes may take to leave this process, and peers of tunnels to stop; again at the end for those that took longer. */
const QUICK: MoveLimits = { flushMs: 10, suspendMs: 250 };
const PATIENT: MoveLimits = { flushMs: 100, suspendMs: 2_000 };
/** Longest wait for upstreams that are being dialled; everything flows meanwhile. */
const DIAL_MS = 250;
/** The same for streams whose peers are being replaced too. */
const SEEK_MS = 3_000;
/** Longest part of that wait without an answer: whoever asks has other pods to ask about, and asks one after the other. */
const ANSWER_MS = 20;
const POLL_MS = 2;
/** Longer than one part is on its way. */
const RECENT_MS = 10_000;

export interface Departed {
  readonly connections: readonly InheritedConnection[];
  /** What is left cannot move. */
  readonly isLast: boolean;
}

export function joined(parts: readonly Departed[]): Departed {
  return {
    connections: parts.flatMap(({ connections }) => connections),
    isLast: parts.every(({ isLast }) => isLast),
  };
}

/**
 * Who takes a same-node short cut along. To another process the pod that was called, which judges it there again. Between
 * threads the one that calls: it is the other one's connection, and no load of its own, to a pod that stays.
 */
export type ShortCutEnd = 'called' | 'caller';

/** To be asked until it says that it was the last part. */
export class Departure {
  readonly #connections: Connections;
  readonly #clock: Clock;
  readonly #shortCuts: ShortCutEnd | undefined;
  readonly #tried = new WeakSet<Connection>();
  /** Of these, those that are to be tried once more. */
  #slow: Connection[] = [];
  #atOnce: number = AT_ONCE.first;
  #lastMs: number | undefined;
  #askedMs: number;
  /** Since when nothing that was not tried could move. */
  #waitsSinceMs: number | undefined;

  /** `shortCuts`: those that go along; absent: none. */
  constructor(connections: Connections, clock: Clock, shortCuts: ShortCutEnd | undefined) {
    this.#connections = connections;
    this.#clock = clock;
    this.#shortCuts = shortCuts;
    this.#askedMs = clock.monotonicMs();
  }

  /**
   * What has left may not have arrived yet; and clients of streams whose peers are asked to suspend may be faster than their last
   * word in the former tunnel.
   */
  get isLeavingSome(): boolean {
    const isRecent = this.#clock.monotonicMs() - this.#askedMs < RECENT_MS;
    return isRecent || this.#connections.all().some(({ tunnel }) => tunnel?.stream.isHalted === true);
  }

  /** Nobody waits here for long: an empty part that is not the last says that more may follow. */
  async next(): Promise<Departed> {
    this.#adapt();
    const fresh = await this.#soonFresh();
    if (fresh.length > 0) return { connections: await this.#move(fresh, QUICK), isLast: false };
    if (this.#isWorthWaiting) return { connections: [], isLast: false };
    const slow = this.#slow.filter(({ isOver }) => !isOver);
    this.#slow = [];
    return { connections: await this.#move(slow, PATIENT), isLast: true };
  }

  #adapt(): void {
    const nowMs = this.#clock.monotonicMs();
    this.#askedMs = nowMs;
    const tookMs = nowMs - (this.#lastMs ?? nowMs - QUICK_MS);
    this.#lastMs = nowMs;
    if (tookMs < QUICK_MS) this.#atOnce = Math.min(2 * this.#atOnce, AT_ONCE.max);
    if (tookMs > LONG_MS) this.#atOnce = Math.max(this.#atOnce / 2, AT_ONCE.min);
  }

  /** Those that can move now, or in a moment. */
  async #soonFresh(): Promise<readonly Connection[]> {
    const endMs = this.#clock.monotonicMs() + ANSWER_MS;
    for (;;) {
      const fresh = this.#fresh();
      if (fresh.length > 0) {
        this.#waitsSinceMs = undefined;
        return fresh;
      }
      if (!this.#isWorthWaiting || this.#clock.monotonicMs() >= endMs) return [];
      await delay(this.#clock, POLL_MS);
    }
  }

  /** First those that stand still already: their peers wait for them elsewhere. */
  #fresh(): readonly Connection[] {
    const untried = this.#connections.movable(this.#shortCuts).filter((connection) => !this.#tried.has(connection));
    const fresh = untried.toArray();
    const parked = fresh.filter(({ tunnel }) => tunnel?.isParked === true);
    return parked.length > 0 ? parked.slice(0, AT_ONCE.max) : fresh.slice(0, this.#atOnce);
  }

  get #isWorthWaiting(): boolean {
    const nowMs = this.#clock.monotonicMs();
    const waitedMs = nowMs - (this.#waitsSinceMs ??= nowMs);
    return (this.#connections.isBusy && waitedMs < DIAL_MS) || (this.#connections.isSeeking && waitedMs < SEEK_MS);
  }

  async #move(connections: readonly Connection[], limits: MoveLimits): Promise<readonly InheritedConnection[]> {
    const moved = await Promise.all(
      connections.map(async (connection) => {
        const inherited = await connection.move(this.#clock, limits);
        if (inherited === undefined && !this.#tried.has(connection)) this.#slow.push(connection);
        this.#tried.add(connection);
        return inherited;
      }),
    );
    return moved.filter((connection) => connection !== undefined);
  }
}
