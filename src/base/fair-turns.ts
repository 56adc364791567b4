/**
 * Turns on one event loop by deficit round robin (Shreedhar and Varghese, 1995), told after the fact: whoever has used up its
 * share of a turn while somebody else wants the loop waits until the next one. Pure: callers measure, hold and let go.
 */

export interface TurnLimits {
  /** What one user may use of a turn before the others have theirs. */
  readonly quantumMs: number;
  /** A user who was served so lately still counts as one who wants the loop. */
  readonly recentMs: number;
}

/** One user of the loop. Made and changed by `FairTurns` only. */
export class TurnUser {
  /** What is left of this turn; below zero when one piece of work was longer than that. */
  creditMs = 0;
  isHeld = false;
  /** The turn for which the credit was given. */
  turn = -1;
}

export class FairTurns {
  readonly #limits: TurnLimits;
  #turn = 0;
  readonly #held = new Set<TurnUser>();
  /** Who used the loop last, who did before that, and when. */
  #latest: TurnUser | undefined;
  #latestMs = Number.NEGATIVE_INFINITY;
  #otherMs = Number.NEGATIVE_INFINITY;
  /** Somebody who is not held used the loop since the last turn ended. */
  #wasUsed = false;

  constructor(limits: TurnLimits) {
    this.#limits = limits;
  }

  /** Grows with every turn. */
  get turn(): number {
    return this.#turn;
  }

  get hasHeld(): boolean {
    return this.#held.size > 0;
  }

  /** True: `user` has to stop now, until `endTurn` names it. Never for one that is alone, whatever it uses. */
  use(user: TurnUser, ms: number, nowMs: number): boolean {
    if (user !== this.#latest) {
      this.#otherMs = this.#latestMs;
      this.#latest = user;
    }
    this.#latestMs = nowMs;
    if (user.isHeld) {
      user.creditMs -= ms;
      return false;
    }
    this.#wasUsed = true;
    this.#refresh(user);
    user.creditMs -= ms;
    if (user.creditMs > 0) return false;
    if (!this.#isContended(nowMs)) {
      // What nobody else wanted is not owed to anybody: the turn is over for all, and the next one begins.
      this.#turn += 1;
      this.#refresh(user);
      return false;
    }
    user.isHeld = true;
    this.#held.add(user);
    return true;
  }

  /** Somebody else has used the loop lately. */
  isWantedBesides(user: TurnUser, nowMs: number): boolean {
    return nowMs - (user === this.#latest ? this.#otherMs : this.#latestMs) <= this.#limits.recentMs;
  }

  /** The loop had nothing to do: nobody waits, so everybody starts anew. */
  rested(): void {
    if (this.#held.size === 0) this.#turn += 1;
  }

  /**
   * Everybody who was ready had a chance. Returns who goes on: those whose next quantum pays what they owe, and, when nobody
   * but held users wants the loop, the next of them in any case.
   */
  endTurn(): readonly TurnUser[] {
    this.#turn += 1;
    const { quantumMs } = this.#limits;
    const quanta = this.#wasUsed ? 1 : this.#quantaToNext();
    this.#wasUsed = false;
    const free: TurnUser[] = [];
    for (const user of this.#held) {
      user.creditMs = Math.min(quantumMs, user.creditMs + quanta * quantumMs);
      if (user.creditMs <= 0) continue;
      user.isHeld = false;
      user.turn = this.#turn;
      this.#held.delete(user);
      free.push(user);
    }
    return free;
  }

  /** It is gone. */
  leave(user: TurnUser): void {
    this.#held.delete(user);
    user.isHeld = false;
    if (this.#latest === user) this.#latest = undefined;
  }

  #refresh(user: TurnUser): void {
    if (user.turn === this.#turn) return;
    user.turn = this.#turn;
    user.creditMs = this.#limits.quantumMs;
  }

  #isContended(nowMs: number): boolean {
    return this.#held.size > 0 || nowMs - this.#otherMs <= this.#limits.recentMs;
  }

  /** Turns in which nobody could do anything are passed over at once. */
  #quantaToNext(): number {
    let least = Number.POSITIVE_INFINITY;
    for (const { creditMs } of this.#held) least = Math.min(least, Math.floor(-creditMs / this.#limits.quantumMs) + 1);
    return Number.isFinite(least) ? least : 1;
  }
}
