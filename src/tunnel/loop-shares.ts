/**
 * Who uses the event loop of this thread, workload by workload, and whose turn it is. Nothing is asked of the kernel and
 * nothing runs by itself: each entry point of the data path says whom it works for, and what ran since the last entry point is
 * that one's, promises and ticks included. What Node did before it called us (reading, decrypting) is priced, since it
 * cannot be seen: a price by profile, never more than the time that passed. A callback that returns says so, where one may follow
 * that is not ours: the handshakes of others, a collection of garbage, the time of another thread are not its own.
 */
import { setImmediate } from 'node:timers';
import type { Clock } from '../base/clock.ts';
import { FairTurns, type TurnLimits, type TurnUser } from '../base/fair-turns.ts';
import type { LoopTime } from '../sys/loop-time.ts';
import { LoopShare } from './loop-share.ts';

/**
 * A fifth of a handshake, or 120 KiB relayed. Less costs more turns than it saves the others time; more is what a neighbour waits
 * for each time it has something to do.
 */
export const TURN_LIMITS: TurnLimits = { quantumMs: 0.2, recentMs: 50 };

/** No piece of work takes longer: whoever was at work had no CPU meanwhile, which it owes to nobody. */
const MOST_PIECE_MS = 5;
/** Nor does a loop sleep longer while somebody waits. */
const MOST_SLEEP_MS = 1_000;

/**
 * How often a thread that goes last lets others have the CPU. The kernel may not do so before its next tick: a thread that has
 * just used the CPU, and wakes again at once, may have had its share already.
 */
const GIVE_WAY_MS = 0.1;

/** After a callback has returned, for its promises and the way back through Node. */
const AFTER_MS = 0.02;

/** A workload with a bounded share may use so much of it at once, as the time in which it earns that. */
const CAP_PERIOD_MS = 100;

/**
 * Peers that come may take this part of the loop while other workloads want it, and so much at once. Turns alone would let a flood
 * keep the thread busy, whose answers to everybody then wait for a CPU.
 */
const BEGINNING_PART = 0.1;
const BEGINNING_MS = 0.3;

export interface LoopDeps {
  readonly time: LoopTime;
  readonly clock: Clock;
}

export class LoopShares {
  readonly #time: LoopTime;
  readonly #clock: Clock;
  readonly #turns: FairTurns | undefined;
  readonly #shares = new Map<TurnUser, LoopShare>();
  /** Who is at work now; `undefined`: nobody in particular. */
  #current: LoopShare | undefined;
  #markMs: number;
  #idleMs: number;
  /** When the callback of the last entry returned; `undefined`: it has not said so. */
  #leftMs: number | undefined;
  /** What Node will do for a workload before it calls us. */
  #expected: { readonly share: LoopShare; leftMs: number } | undefined;
  #turnedMs = 0;
  #entries = 0;
  #isEndDue = false;
  #gaveWayMs = 0;

  /** Without `limits` work is counted and nobody waits. */
  constructor({ time, clock }: LoopDeps, limits: TurnLimits | undefined) {
    this.#time = time;
    this.#clock = clock;
    this.#turns = limits && new FairTurns(limits);
    this.#markMs = time.nowMs();
    this.#idleMs = time.idleMs();
  }

  /** For one pod, until it is closed. */
  open(): LoopShare {
    const share = new LoopShare(this);
    this.#shares.set(share.user, share);
    return share;
  }

  /** @internal LoopShare only. */
  closed(share: LoopShare): void {
    this.#turns?.leave(share.user);
    this.#shares.delete(share.user);
    if (this.#current === share) this.#current = undefined;
    if (this.#expected?.share === share) this.#expected = undefined;
  }

  /** @internal LoopShare only: how long the loop has turned, without the time in which it had no CPU. */
  get turnedMs(): number {
    return this.#turnedMs;
  }

  /** @internal LoopShare only: grows with every turn; each entry is one where nobody takes turns. */
  get turn(): number {
    return this.#turns?.turn ?? this.#entries;
  }

  /** What follows is for no workload: messages of other threads, timers. */
  nobody(): void {
    this.enter(undefined, 0);
  }

  /** The callback that has entered returns. */
  leave(): void {
    this.#leftMs = this.#time.nowMs();
  }

  /** Node will work so long for `share` before it calls anybody about it. */
  expect(share: LoopShare, ms: number): void {
    this.#expected = { share, leftMs: ms };
  }

  /** From here on the loop works for `share`, for which Node has worked `nativeMs` before it called us. */
  enter(share: LoopShare | undefined, nativeMs: number): void {
    const nowMs = this.#giveWay(this.#time.nowMs());
    const idleMs = this.#time.idleMs();
    const sleptMs = idleMs - this.#idleMs;
    const spentMs = Math.min(MOST_PIECE_MS, Math.max(0, nowMs - this.#markMs - sleptMs));
    this.#turnedMs += spentMs + Math.min(MOST_SLEEP_MS, sleptMs);
    const ownMs = Math.min(spentMs, nativeMs);
    const unseenMs = this.#unseenMs(spentMs - ownMs);
    this.#markMs = nowMs;
    this.#idleMs = idleMs;
    this.#leftMs = undefined;
    this.#entries += 1;
    if (sleptMs > 0) this.#turns?.rested();
    const former = this.#current;
    this.#current = share;
    if (unseenMs > 0) this.#chargeUnseen(unseenMs, nowMs);
    if (former === share) {
      if (share !== undefined) this.#charge(share, spentMs - unseenMs, nowMs);
      return;
    }
    if (former !== undefined) this.#charge(former, spentMs - ownMs - unseenMs, nowMs);
    if (share !== undefined) this.#charge(share, ownMs, nowMs);
  }

  /** Returns what time it is then; what others took of it is charged to nobody. */
  #giveWay(nowMs: number): number {
    if (this.#time.giveWay === undefined || nowMs - this.#gaveWayMs < GIVE_WAY_MS) return nowMs;
    this.#time.giveWay();
    this.#gaveWayMs = this.#time.nowMs();
    const awayMs = this.#gaveWayMs - nowMs;
    this.#markMs += awayMs;
    if (this.#leftMs !== undefined) this.#leftMs += awayMs;
    return this.#gaveWayMs;
  }

  /** How much of what passed since the last entry came after it had returned. */
  #unseenMs(ms: number): number {
    return this.#leftMs === undefined ? 0 : Math.max(0, ms - (this.#leftMs - this.#markMs) - AFTER_MS);
  }

  #chargeUnseen(ms: number, nowMs: number): void {
    const expected = this.#expected;
    if (expected === undefined) return;
    const own = Math.min(ms, expected.leftMs);
    expected.leftMs -= own;
    if (expected.leftMs <= 0) this.#expected = undefined;
    this.#charge(expected.share, own, nowMs);
  }

  #charge(share: LoopShare, ms: number, nowMs: number): void {
    share.busyMs += ms;
    if (share.loopShare < 1) this.#spend(share, ms, nowMs);
    if (this.#turns?.use(share.user, ms, nowMs) !== true) return;
    if (!share.isCapped) share.hold();
    this.#endTurnLater();
  }

  /** After one whole look at what is ready: the first immediate comes before it, when sockets are being served now. */
  #endTurnLater(): void {
    if (this.#isEndDue) return;
    this.#isEndDue = true;
    setImmediate(() => setImmediate(() => this.#endTurn()));
  }

  #endTurn(): void {
    this.#isEndDue = false;
    this.enter(this.#current, 0);
    for (const user of this.#turns?.endTurn() ?? []) this.#shares.get(user)?.goOn();
    if (this.#turns?.hasHeld === true) this.#endTurnLater();
  }

  /**
   * Something new begins for `share`, which will cost about so much. Returns how long nothing more should begin, ms. While nobody
   * else wants the loop it is free, but in a thread that goes last: what the kernel does for a flood has the priority of nobody.
   */
  begins(share: LoopShare, ms: number): number {
    const nowMs = this.#time.nowMs();
    const isFree = this.#time.giveWay === undefined && this.#turns?.isWantedBesides(share.user, nowMs) !== true;
    if (isFree) return 0;
    const earned = (nowMs - share.beganAtMs) * BEGINNING_PART;
    share.beginningMs = Math.min(BEGINNING_MS, share.beginningMs + earned) - ms;
    share.beganAtMs = nowMs;
    return share.beginningMs > 0 ? 0 : (BEGINNING_MS / 2 - share.beginningMs) / BEGINNING_PART;
  }

  /** Whoever has used more than its share sleeps until it has earned that, whether or not anybody else wants the loop. */
  #spend(share: LoopShare, ms: number, nowMs: number): void {
    const most = CAP_PERIOD_MS * share.loopShare;
    const earned = (nowMs - share.allowedAtMs) * share.loopShare;
    share.allowanceMs = Math.min(most, share.allowanceMs + earned) - ms;
    share.allowedAtMs = nowMs;
    if (share.allowanceMs <= 0) this.#cap(share, (most / 2 - share.allowanceMs) / share.loopShare);
  }

  #cap(share: LoopShare, forMs: number): void {
    if (share.isCapped) return;
    share.isCapped = true;
    if (!share.user.isHeld) share.hold();
    this.#clock.after(Math.max(1, forMs), () => {
      this.enter(this.#current, 0);
      share.isCapped = false;
      share.goOn();
    });
  }
}
