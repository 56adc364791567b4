/**
 * Refusals that callers can cause at will: each kind is logged once a minute, with how often it happened meanwhile, and not
 * more than a few kinds: a caller that asks in ever new names makes ever new ones.
 */
import { BoundedMap } from '../base/bounded-map.ts';
import type { Clock } from '../base/clock.ts';
import type { LogFields, Logger } from '../base/log.ts';
import { type RateLimit, TokenBucket } from '../base/token-bucket.ts';

const QUIET_MS = 60_000;
/** Kinds that are remembered; the one not seen for longest is forgotten for a new one. */
const MAX_KINDS = 1_000;
/** Lines of all kinds. */
const LINES: RateLimit = { burst: 100, perSecond: 1 };

export interface RefusalLogDeps {
  readonly clock: Clock;
  readonly log: Logger;
}

export class RefusalLog {
  readonly #deps: RefusalLogDeps;
  readonly #kinds = new BoundedMap<string, { readonly saidMs: number; count: number }>(MAX_KINDS);
  readonly #lines: TokenBucket;
  /** Lines that were too many, since the last one. */
  #omitted = 0;

  constructor(deps: RefusalLogDeps) {
    this.#deps = deps;
    this.#lines = new TokenBucket(LINES, deps.clock.monotonicMs());
  }

  /** Text of peers in `fields` is escaped and cut by the log itself. */
  say(message: string, fields: LogFields): void {
    const { clock, log } = this.#deps;
    const key = JSON.stringify([message, fields]);
    const nowMs = clock.monotonicMs();
    const known = this.#kinds.get(key);
    if (known !== undefined && nowMs - known.saidMs < QUIET_MS) {
      known.count += 1;
      return;
    }
    if (!this.#lines.take(nowMs)) {
      this.#omitted += 1;
      return;
    }
    this.#kinds.set(key, { saidMs: nowMs, count: 0 });
    const repeated = known?.count ?? 0;
    const omitted = this.#omitted;
    this.#omitted = 0;
    log.warn?.(message, { ...fields, ...(repeated > 0 && { repeated }), ...(omitted > 0 && { omitted }) });
  }
}
