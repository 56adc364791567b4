/**
 * Peers whose tunnels had to be cut. A tunnel is cheap to open and dear to accept, so whoever misuses one must not have the
 * next at once: connections from its address wait, longer each time, before anything is done for them. Only who has proved an
 * identity gets here, so nobody is blamed for what others sent in its name; who shares the address waits along.
 */
import type { Clock } from '../base/clock.ts';
import { RecentMap } from '../base/recent-map.ts';

const FIRST_DELAY_MS = 100;
/** Less than any client waits for a handshake. */
const MAX_DELAY_MS = 4_000;
/** So many offences in a row reach it; more are not counted. */
const MAX_OFFENCES = 7;
/** In this time one offence is forgiven. */
const FORGIVE_MS = 5_000;
/** Forgotten before their time when more peers than that misbehave. */
const MAX_ADDRESSES = 1_024;

interface Record {
  readonly offences: number;
  readonly sinceMs: number;
}

export class Offenders {
  readonly #clock: Clock;
  readonly #records = new RecentMap<Record>(MAX_ADDRESSES);

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** How long a new connection from there has to wait. */
  delayMs(ip: string): number {
    const offences = Math.ceil(this.#offences(ip));
    return offences === 0 ? 0 : Math.min(MAX_DELAY_MS, FIRST_DELAY_MS * 2 ** (offences - 1));
  }

  /** Had to be cut. Returns what its next connection waits. */
  add(ip: string): number {
    const offences = Math.min(MAX_OFFENCES, this.#offences(ip) + 1);
    this.#records.set(ip, { offences, sinceMs: this.#clock.monotonicMs() });
    return this.delayMs(ip);
  }

  #offences(ip: string): number {
    const record = this.#records.get(ip);
    if (record === undefined) return 0;
    return Math.max(0, record.offences - (this.#clock.monotonicMs() - record.sinceMs) / FORGIVE_MS);
  }
}
