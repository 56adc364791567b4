/** Tells the successor what an agent that was replaced still carries, until that is over. */
import { type Clock, delay } from '../../base/clock.ts';
import type { HandOverLink } from './link.ts';
import type { HeldAgent } from './protocol.ts';

/** How often it is looked whether there is news, and how often it is told without any: well within the successor's patience. */
const LOOK_MS = 1_000;
const REPEAT_MS = 15_000;
/** Upgrades in a row whose agents all still hold something. */
const MAX_AGENTS = 32;

export interface HeldReport {
  readonly clock: Clock;
  readonly agents: () => readonly HeldAgent[];
  /** Resolves when nothing is held any more: that is told too. */
  readonly over: Promise<void>;
}

/** Resolves with `over`, or later when the successor is slow. Never rejects: without a successor nobody is told. */
export async function reportHeld(link: HandOverLink, { clock, agents, over }: HeldReport): Promise<void> {
  let isOver = false;
  void over.then(() => (isOver = true));
  let told = '';
  let toldMs = 0;
  try {
    for (let isLast = false; !isLast; ) {
      isLast = isOver;
      const held = agents().slice(0, MAX_AGENTS);
      const text = JSON.stringify(held);
      if (text !== told || clock.monotonicMs() - toldMs >= REPEAT_MS) {
        await link.send({ type: 'held', agents: held });
        told = text;
        toldMs = clock.monotonicMs();
      }
      if (!isLast) await Promise.race([over, delay(clock, LOOK_MS)]);
    }
  } catch {
    // The successor has ended; the next one asks the agents that are left to it.
    await over;
  }
}
