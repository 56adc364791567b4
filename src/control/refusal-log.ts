/** Refusals that callers can cause at will: each kind is logged once a minute, with how often it happened meanwhile. */
import type { Clock } from '../base/clock.ts';
import type { LogFields, Logger } from '../base/log.ts';

const QUIET_MS = 60_000;
/** Kinds that are remembered; the oldest is forgotten for a new one. */
const MAX_KINDS = 1_000;

export interface RefusalLogDeps {
  readonly clock: Clock;
  readonly log: Logger;
}

export class RefusalLog {
  readonly #deps: RefusalLogDeps;
  readonly #kinds = new Map<string, { readonly saidMs: number; count: number }>();

  constructor(deps: RefusalLogDeps) {
    this.#deps = deps;
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
    this.#kinds.delete(key);
    const [oldest] = this.#kinds.keys();
    if (this.#kinds.size >= MAX_KINDS && oldest !== undefined) this.#kinds.delete(oldest);
    this.#kinds.set(key, { saidMs: nowMs, count: 0 });
    const repeated = known?.count ?? 0;
    log.warn?.(message, repeated === 0 ? fields : { ...fields, repeated });
  }
}
