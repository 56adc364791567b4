/**
 * Peers whose tunnels had to be cut, or whose handshakes come to nothing. A tunnel is cheap to ask for and dear to accept, so
 * whoever misuses one must not have the next at once: connections from its address wait, longer each time, before anything is
 * done for them. Nobody can be blamed from elsewhere, since the address has answered; who shares it waits along.
 */
import { doubledMs } from '../base/backoff.ts';
import type { Clock } from '../base/clock.ts';
import { RecentMap } from '../base/recent-map.ts';

/** Less than any client waits for a handshake. */
const MAX_DELAY_MS = 4_000;
const DELAY = { firstMs: 100, maxMs: MAX_DELAY_MS } as const;
/** So many offences in a row reach it; more are not counted. */
const MAX_OFFENCES = 7;
/** Of an offence: honest peers fail too, while certificates are renewed or refused. Eight in a row are felt, three a second are not. */
const FAILED_HANDSHAKE = 1 / 16;
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

  /** How long a new connection from there has to wait. `inProgress`: of its handshakes, none of which may come to anything. */
  delayMs(ip: string, inProgress = 0): number {
    const offences = Math.round(this.#offences(ip) + inProgress * FAILED_HANDSHAKE);
    return offences === 0 ? 0 : doubledMs(DELAY, Math.min(MAX_OFFENCES, offences) - 1);
  }

  /** A tunnel of it had to be cut. Returns what its next connection waits. */
  cut(ip: string): number {
    this.#add(ip, 1);
    return this.delayMs(ip);
  }

  /** It made us answer a greeting, and that was all. */
  failed(ip: string): void {
    this.#add(ip, FAILED_HANDSHAKE);
  }

  #add(ip: string, weight: number): void {
    const offences = Math.min(MAX_OFFENCES, this.#offences(ip) + weight);
    this.#records.set(ip, { offences, sinceMs: this.#clock.monotonicMs() });
  }

  #offences(ip: string): number {
    const record = this.#records.get(ip);
    if (record === undefined) return 0;
    return Math.max(0, record.offences - (this.#clock.monotonicMs() - record.sinceMs) / FORGIVE_MS);
  }
}
