/**
 * Peers whose tunnels had to be cut, or whose handshakes come to nothing. A tunnel is cheap to ask for and dear to accept, so
 * whoever misuses one must not have the next at once: connections from its address wait, longer each time, before anything is
 * done for them. Nobody can be blamed from elsewhere, since the address has answered; who shares it waits along.
 *
 * What all of them together make the pod work for in vain within moments is an attack on it, which is told.
 */
import { doubledMs } from '../base/backoff.ts';
import type { Clock } from '../base/clock.ts';
import { RecentMap } from '../base/recent-map.ts';
import { TokenBucket } from '../base/token-bucket.ts';

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
/** Connections in vain, of all addresses: more is an attack. Probes and peers with an old certificate stay below it. */
const BORNE = { burst: 50, perSecond: 20 } as const;
/** In connections: two tunnels that are cut at once are an attack. */
const CUT_TUNNEL = 30;
/** Where one had to go, others that stay say as little. */
const CROWDED_OUT = 2;
/** How often one that goes on is told. */
const TELL_MS = 1_000;
/** From one attack to the next: less is the same one, with a pause. */
const PEACE_MS = 60_000;

interface Record {
  readonly offences: number;
  readonly sinceMs: number;
}

export class Offenders {
  readonly #clock: Clock;
  readonly #onAttack: (isNew: boolean) => void;
  readonly #records = new RecentMap<Record>(MAX_ADDRESSES);
  readonly #borne: TokenBucket;
  #toldMs = Number.NEGATIVE_INFINITY;

  /** `onAttack` is called as it begins, and once a second while it goes on. */
  constructor(clock: Clock, onAttack: (isNew: boolean) => void) {
    this.#clock = clock;
    this.#onAttack = onAttack;
    this.#borne = new TokenBucket(BORNE, clock.monotonicMs());
  }

  /** How long a new connection from there has to wait. `inProgress`: of its handshakes, none of which may come to anything. */
  delayMs(ip: string, inProgress = 0): number {
    const offences = Math.round(this.#offences(ip) + inProgress * FAILED_HANDSHAKE);
    return offences === 0 ? 0 : doubledMs(DELAY, Math.min(MAX_OFFENCES, offences) - 1);
  }

  /** A tunnel of it had to be cut. Returns what its next connection waits. */
  cut(ip: string): number {
    this.#add(ip, 1);
    this.#bear(CUT_TUNNEL);
    return this.delayMs(ip);
  }

  /** It made us answer a greeting, and that was all. */
  failed(ip: string): void {
    this.#add(ip, FAILED_HANDSHAKE);
    this.#bear(1);
  }

  /** A peer came and said nothing, or half a word. Its address is not blamed: it cost little. */
  silent(): void {
    this.#bear(1);
  }

  /** So many say nothing at once that one had to go. `isOwn`: all of its own address, which no peer of a mesh does. */
  crowd(isOwn: boolean): void {
    this.#bear(isOwn ? BORNE.burst : CROWDED_OUT);
  }

  #bear(connections: number): void {
    const nowMs = this.#clock.monotonicMs();
    const sinceMs = nowMs - this.#toldMs;
    if (this.#borne.take(nowMs, connections) || sinceMs < TELL_MS) return;
    this.#toldMs = nowMs;
    this.#onAttack(sinceMs >= PEACE_MS);
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
