/** Counts what only an abusive or broken peer does often, and ends the session when it is too much (RFC 9113 §10.5). */
import type { Clock } from '../base/clock.ts';
import { TokenBucket } from '../base/token-bucket.ts';
import { connectionError, H2 } from '../wire/h2-protocol.ts';
import type { H2Limits } from './h2-settings.ts';

export type AbuseKind =
  | 'freshResets'
  | 'ownResets'
  | 'pings'
  | 'settings'
  | 'uselessFrames'
  | 'emptyFrames'
  | 'windowUpdates'
  | 'keyUpdates'
  | 'oddRequests';

const WHAT = {
  freshResets: 'streams opened and reset at once',
  ownResets: 'streams we had to reset',
  pings: 'PING frames',
  settings: 'SETTINGS frames',
  uselessFrames: 'frames without effect',
  emptyFrames: 'empty DATA frames',
  windowUpdates: 'WINDOW_UPDATE frames',
  keyUpdates: 'TLS key updates',
  oddRequests: 'requests that are no CONNECT of HBONE',
} as const satisfies Record<AbuseKind, string>;

export class H2Abuse {
  readonly #limits: H2Limits;
  readonly #clock: Clock;
  /** Made on first use: an idle session has none. */
  readonly #buckets = new Map<AbuseKind, TokenBucket>();

  constructor(limits: H2Limits, clock: Clock) {
    this.#limits = limits;
    this.#clock = clock;
  }

  /** Throws CV-TUNNEL-ABUSE when `kind` came more often than its limit. */
  spend(kind: AbuseKind): void {
    const nowMs = this.#clock.monotonicMs();
    const isWithin = this.#bucket(kind, nowMs).take(nowMs);
    if (!isWithin) throw connectionError(H2.enhanceYourCalm, `too many ${WHAT[kind]}`);
  }

  /** Gives tokens back, up to the burst: work of ours explains so many frames of the peer. */
  earn(kind: AbuseKind, tokens: number): void {
    const nowMs = this.#clock.monotonicMs();
    this.#bucket(kind, nowMs).give(tokens, nowMs);
  }

  #bucket(kind: AbuseKind, nowMs: number): TokenBucket {
    let bucket = this.#buckets.get(kind);
    if (bucket === undefined) {
      bucket = new TokenBucket(this.#limits[kind], nowMs);
      this.#buckets.set(kind, bucket);
    }
    return bucket;
  }
}
