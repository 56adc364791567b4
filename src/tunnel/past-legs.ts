/** Tunnels that a resumable stream has left: what they brought is delivered in their order, before anything of the next. */
import type { Leg } from './resumable-leg.ts';

export class PastLegs {
  /** Oldest first. */
  #legs: readonly Leg[] = [];

  add(leg: Leg): void {
    this.#legs = [...this.#legs, leg];
  }

  remove(leg: Leg): void {
    this.#legs = this.#legs.filter((one) => one !== leg);
  }

  has(leg: Leg): boolean {
    return this.#legs.includes(leg);
  }

  all(): readonly Leg[] {
    return this.#legs;
  }

  /** What brought the bytes that are next for the near end; `undefined`: they have all that came before. */
  get undelivered(): Leg | undefined {
    return this.#legs.find(({ isDelivered }) => !isDelivered);
  }

  /** Said by us, and on its way there. */
  get bufferedBytes(): number {
    return this.#legs.reduce((sum, { stream }) => sum + stream.bufferedBytes, 0);
  }

  /** Our last word in each is on its way. */
  get isAllSaid(): boolean {
    return this.#legs.every(({ hasSaidLast }) => hasSaidLast);
  }

  /** Why one of the peers is not to be believed. */
  get miscount(): string | undefined {
    return this.#legs.map((leg) => leg.miscount).find((text) => text !== undefined);
  }

  /** What waits for a near end that is stopped. */
  takeInboxes(): Uint8Array {
    return Buffer.concat(this.#legs.map(({ stream }) => stream.takeInbox()));
  }
}
