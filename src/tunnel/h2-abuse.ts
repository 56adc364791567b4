/** Counts what only an abusive or broken peer does often, and ends the session when it is too much (RFC 9113 §10.5). */
import type { Clock } from '../base/clock.ts';
import { connectionError, H2 } from '../wire/h2-protocol.ts';
import type { H2Limits, RateLimit } from './h2-settings.ts';

export type AbuseKind =
  | 'freshResets'
  | 'ownResets'
  | 'pings'
  | 'settings'
  | 'uselessFrames'
  | 'emptyFrames'
  | 'windowUpdates';

const WHAT = {
  freshResets: 'streams opened and reset at once',
  ownResets: 'streams we had to reset',
  pings: 'PING frames',
  settings: 'SETTINGS frames',
  uselessFrames: 'frames without effect',
  emptyFrames: 'empty DATA frames',
  windowUpdates: 'WINDOW_UPDATE frames',
} as const satisfies Record<AbuseKind, string>;

interface Bucket {
  tokens: number;
  filledMs: number;
}

export class H2Abuse {
  readonly #limits: H2Limits;
  readonly #clock: Clock;
  /** Made on first use: an idle session has none. */
  readonly #buckets = new Map<AbuseKind, Bucket>();

  constructor(limits: H2Limits, clock: Clock) {
    this.#limits = limits;
    this.#clock = clock;
  }

  /** Throws CV-TUNNEL-ABUSE when `kind` came more often than its limit. */
  spend(kind: AbuseKind): void {
    const bucket = this.#bucket(kind, this.#limits[kind]);
    bucket.tokens -= 1;
    if (bucket.tokens < 0) throw connectionError(H2.enhanceYourCalm, `too many ${WHAT[kind]}`);
  }

  /** Gives tokens back, up to the burst: work of ours explains so many frames of the peer. */
  earn(kind: AbuseKind, tokens: number): void {
    const limit = this.#limits[kind];
    const bucket = this.#bucket(kind, limit);
    bucket.tokens = Math.min(limit.burst, bucket.tokens + tokens);
  }

  #bucket(kind: AbuseKind, { burst, perSecond }: RateLimit): Bucket {
    const nowMs = this.#clock.monotonicMs();
    let bucket = this.#buckets.get(kind);
    if (bucket === undefined) {
      bucket = { tokens: burst, filledMs: nowMs };
      this.#buckets.set(kind, bucket);
    }
    bucket.tokens = Math.min(burst, bucket.tokens + ((nowMs - bucket.filledMs) / 1000) * perSecond);
    bucket.filledMs = nowMs;
    return bucket;
  }
}
