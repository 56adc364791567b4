/**
 * Which early refusals are told one by one. In a flood of thousands a second, a line and a record of each would keep the thread
 * busy, fill the young generation of its heap with what has to be copied, and hide what else there is to read: beyond a rate they
 * are counted, and told together.
 */
import { BoundedMap } from '../base/bounded-map.ts';
import type { Clock } from '../base/clock.ts';
import type { Logger } from '../base/log.ts';
import { type RateLimit, TokenBucket } from '../base/token-bucket.ts';
import { logManyFailed } from './access-log.ts';
import type { EarlyRefusal } from './traffic.ts';

/** Told one by one, for each pod and reason. */
const TOLD: RateLimit = { burst: 100, perSecond: 10 };
/** From the first that is only counted to the line that tells how many there were. */
const SUM_MS = 1_000;
/** Pods and reasons of which something was refused lately; beyond, the one longest without begins anew. */
const MAX_KINDS = 1_024;

interface Kind {
  readonly told: TokenBucket;
  /** Since the last sum. */
  untold: number;
  last: EarlyRefusal;
}

export interface RefusalLimitDeps {
  readonly accessLog: Logger;
  readonly clock: Clock;
}

export class RefusalLimit {
  readonly #deps: RefusalLimitDeps;
  readonly #kinds = new BoundedMap<string, Kind>(MAX_KINDS, (kind) => this.#tell(kind));
  #sum: Disposable | undefined;

  constructor(deps: RefusalLimitDeps) {
    this.#deps = deps;
  }

  /** False: it is counted, and a line tells of it later. */
  isTold(early: EarlyRefusal): boolean {
    const nowMs = this.#deps.clock.monotonicMs();
    const kind = this.#kindOf(early, nowMs);
    if (kind.told.take(nowMs)) return true;
    kind.untold += 1;
    kind.last = early;
    this.#sum ??= this.#deps.clock.after(SUM_MS, () => this.sumUp());
    return false;
  }

  /** Tells what is only counted yet. */
  sumUp(): void {
    this.#sum?.[Symbol.dispose]();
    this.#sum = undefined;
    for (const kind of this.#kinds.values()) this.#tell(kind);
  }

  #tell(kind: Kind): void {
    if (kind.untold > 0) logManyFailed(this.#deps.accessLog, kind.last, kind.untold);
    kind.untold = 0;
  }

  #kindOf(early: EarlyRefusal, nowMs: number): Kind {
    const key = `${early.podUid} ${early.refusal.code}`;
    let kind = this.#kinds.get(key);
    if (kind === undefined) {
      kind = { told: new TokenBucket(TOLD, nowMs), untold: 0, last: early };
      this.#kinds.set(key, kind);
    }
    return kind;
  }
}
