/** Questions to an on-demand control plane: one at a time per key, bounded in time and number. */
import { ChangeLog } from '../../base/change-log.ts';
import { type Clock, withDeadline } from '../../base/clock.ts';
import { MeshError, messageOf } from '../../base/errors.ts';
import type { LogFields, Logger } from '../../base/log.ts';
import { RecentMap } from '../../base/recent-map.ts';
import { type RateLimit, TokenBucket } from '../../base/token-bucket.ts';
import type { MeshDemand } from '../../model/mesh-demand.ts';
import type { Refusal } from '../../model/verdict.ts';

/** The reference waits for ever; an application's connect attempt does not. */
const ANSWER_TIMEOUT_MS = 5_000;
/** New questions of one pod: a port scan must not become a flood of the control plane. */
const RATE: RateLimit = { burst: 500, perSecond: 100 };
/** Pods whose rate is remembered. */
const MAX_PODS = 4_096;
/**
 * How long an answer counts that brought nothing: a scan of the ports of one address is one question. Short, because
 * what appears at an address meanwhile is not told unasked.
 */
const ANSWER_MS = 2_000;
const MAX_ANSWERS = 16_384;
/** Between two lines that say it is away: it may answer one key and not the next. */
const LOG_PERIOD_MS = 10_000;

export interface MeshQuestionsDeps {
  readonly demand: MeshDemand;
  readonly clock: Clock;
  readonly log: Logger;
}

export class MeshQuestions {
  readonly #deps: MeshQuestionsDeps;
  /** Bounded by the rates: a question ends within its time. */
  readonly #open = new Map<string, Promise<Refusal | undefined>>();
  readonly #rates = new RecentMap<TokenBucket>(MAX_PODS);
  /** Key → until when its answer counts. */
  readonly #answeredUntilMs = new RecentMap<number>(MAX_ANSWERS);
  readonly #silences: ChangeLog;
  /** As the log has it. */
  #isAway = false;

  constructor(deps: MeshQuestionsDeps) {
    this.#deps = deps;
    this.#silences = new ChangeLog(deps.clock, LOG_PERIOD_MS);
  }

  /**
   * `undefined`: the mesh as it is now is the answer, also when it still knows nothing by `key`. Otherwise nobody could say, and
   * the connection must be refused: it may be one that has to be encrypted.
   */
  async ask(podUid: string, key: string): Promise<Refusal | undefined> {
    const nowMs = this.#deps.clock.monotonicMs();
    if ((this.#answeredUntilMs.get(key) ?? 0) > nowMs) return undefined;
    const open = this.#open.get(key);
    if (open !== undefined) return await open;
    if (!this.#rateOf(podUid, nowMs).take(nowMs)) {
      return { code: 'CV-LIMIT', text: `more than ${RATE.perSecond} unknown destinations per second: ${key}` };
    }
    const answer = this.#fetch(key);
    this.#open.set(key, answer);
    try {
      return await answer;
    } finally {
      this.#open.delete(key);
    }
  }

  async #fetch(key: string): Promise<Refusal | undefined> {
    const { demand, clock } = this.#deps;
    const controller = new AbortController();
    const late = (): MeshError => new MeshError('CV-MESH-SILENT', `no answer within ${ANSWER_TIMEOUT_MS / 1_000} s`);
    try {
      await withDeadline(demand.fetch(key, controller.signal), clock, ANSWER_TIMEOUT_MS, late);
    } catch (error) {
      this.#sayAway(key, messageOf(error));
      return { code: 'CV-MESH-SILENT', text: `control plane did not answer about ${key}: ${messageOf(error)}` };
    } finally {
      controller.abort();
    }
    this.#sayBack(key);
    this.#answeredUntilMs.set(key, clock.monotonicMs() + ANSWER_MS);
    return undefined;
  }

  #sayAway(key: string, error: string): void {
    this.#silences.note('away', (leftOut) => {
      this.#isAway = true;
      const fields: LogFields = { reason: 'CV-MESH-SILENT', key, error, leftOut };
      this.#deps.log.warn?.('control plane does not answer, unknown destinations are refused', fields);
    });
  }

  #sayBack(key: string): void {
    if (this.#isAway) this.#deps.log.info?.('control plane answers again', { key });
    this.#isAway = false;
    this.#silences.reset();
  }

  #rateOf(podUid: string, nowMs: number): TokenBucket {
    const known = this.#rates.get(podUid);
    if (known !== undefined) return known;
    const rate = new TokenBucket(RATE, nowMs);
    this.#rates.set(podUid, rate);
    return rate;
  }
}
