/** When the certificate of an identity is asked for: at once, renewed at half life, tried again after a failure. */
import { deadline } from '../base/clock.ts';
import { MeshError, toMeshError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { Random } from '../base/random.ts';
import { renewalDueMs, retryDelayMs } from '../model/rotation.ts';
import { type Entry, failureText, usableMaterial } from './certificate-entry.ts';
import { FailureLog } from './failure-log.ts';
import { type AttemptDeps, issueOnce } from './issue-attempt.ts';
import { IssueQueue, type Priority } from './issue-queue.ts';
import type { Held } from './issued-certificate.ts';

/** Requests to the CA at once; ztunnel's value. */
const CONCURRENCY = 8;
/** Longest a handshake waits for its first certificate, queueing included. */
const WAIT_MS = 15_000;
/** Sleeps are cut to this, so that a wall clock that was set right, or a suspended machine, is noticed. */
const MAX_SLEEP_MS = 600_000;

export interface RenewalDeps extends AttemptDeps {
  readonly random: Random;
  readonly log: Logger;
  readonly observer?: CertificateObserver;
  readonly withCurrentRoots: (held: Held) => Held;
  /** The entry holds it already. `isNew`: it is not the one it held before. */
  readonly onIssued: (entry: Entry, held: Held, isNew: boolean) => void;
}

/** For metrics. Called once for each attempt. */
interface CertificateObserver {
  issued(identity: string): void;
  failed(identity: string, error: MeshError): void;
}

/** One flight per identity, and a bounded number of them at once. */
export class CertificateRenewal {
  readonly #deps: RenewalDeps;
  readonly #queue = new IssueQueue(CONCURRENCY);
  readonly #failures = new FailureLog();

  constructor(deps: RenewalDeps) {
    this.#deps = deps;
  }

  /** Queues the next attempt; nothing while one is queued or under way. */
  request(entry: Entry, priority: Priority): void {
    if (entry.phase !== 'resting' || entry.isForgotten) return;
    entry.timer?.[Symbol.dispose]();
    entry.phase = 'queued';
    entry.attempt = Promise.withResolvers<void>();
    this.#queue.add(entry.identity, priority, () => this.#attempt(entry));
  }

  /** The provider has something newer: taken at once, or after the attempt under way. */
  renew(entry: Entry): void {
    entry.isOutdated = true;
    this.request(entry, this.#priority(entry));
  }

  /** What the entry has from elsewhere serves until it is due. */
  hold(entry: Entry, held: Held): void {
    entry.held = held;
    this.#renewAt(entry, this.#renewalMs(held));
  }

  /** A handshake waits for the attempt that is queued or under way, before all that nobody waits for. */
  async ended(entry: Entry): Promise<void> {
    this.#queue.promote(entry.identity);
    const { promise, resolve } = Promise.withResolvers<void>();
    using _deadline = deadline(this.#deps.clock, WAIT_MS, resolve);
    await Promise.race([entry.attempt.promise, promise]);
  }

  /** Nothing is asked for any more, and who waits goes on. */
  stop(entry: Entry): void {
    entry.isForgotten = true;
    entry.error = new MeshError('CV-CERT-UNAVAILABLE', 'no pod of this node uses the identity any more');
    entry.timer?.[Symbol.dispose]();
    this.#queue.remove(entry.identity);
    this.#failures.recovered(entry.identity);
    entry.abort?.abort(entry.error);
    entry.attempt.resolve();
  }

  async #attempt(entry: Entry): Promise<void> {
    if (entry.isForgotten) return;
    const { attempt } = entry;
    const { observer, withCurrentRoots } = this.#deps;
    entry.phase = 'issuing';
    entry.isOutdated = false;
    try {
      const held = withCurrentRoots(await issueOnce(entry, this.#deps));
      if (entry.isForgotten) return;
      this.#succeeded(entry, held);
      observer?.issued(entry.identity);
    } catch (error) {
      if (!entry.isForgotten) this.#failed(entry, toMeshError(error, 'CV-CA'));
    } finally {
      attempt.resolve();
    }
  }

  #succeeded(entry: Entry, held: Held): void {
    const isNew = entry.held?.material.serial !== held.material.serial;
    entry.error = undefined;
    entry.failures = 0;
    this.hold(entry, held);
    const mended = this.#failures.recovered(entry.identity);
    if (mended !== undefined) this.#deps.log.info?.('certificates are issued again', { was: mended });
    this.#deps.onIssued(entry, held, isNew);
  }

  #renewalMs({ validity }: Held): number {
    const { clock, random, provider } = this.#deps;
    // It tells when it has a new one; asking before could only bring the same again.
    if (provider.subscribeRenewals !== undefined) return validity.notAfterMs + 1;
    const nowMs = clock.wallMs();
    // A short life that began in the past, for the sake of other clocks, is half over at birth.
    const earliestMs = nowMs + (validity.notAfterMs - nowMs) / 4;
    return Math.max(renewalDueMs(validity, random), earliestMs);
  }

  #failed(entry: Entry, error: MeshError): void {
    const nowMs = this.#deps.clock.wallMs();
    const leftMs = (entry.held?.validity.notAfterMs ?? 0) - nowMs;
    const delayMs = retryDelayMs(entry.failures, { leftMs, isMissed: entry.isMissed }, this.#deps.random);
    const retryMs = nowMs + delayMs;
    entry.error = error;
    entry.failures += 1;
    // Not by the wall clock: set back, it would put off what perhaps failed because it was ahead.
    this.#rest(entry, retryMs, delayMs, () => this.request(entry, this.#priority(entry)));
    this.#deps.observer?.failed(entry.identity, error);
    const isNews = this.#failures.failed(entry.identity, error.message);
    const write = isNews ? this.#deps.log.warn : this.#deps.log.debug;
    const { identity, failures } = entry;
    write?.(failureText(entry, nowMs, retryMs), { reason: error.code, identity, failures });
  }

  /** Requests at wall time `dueMs`. Looks at the wall clock again at least every `MAX_SLEEP_MS`. */
  #renewAt(entry: Entry, dueMs: number): void {
    const { clock } = this.#deps;
    const leftMs = dueMs - clock.wallMs();
    this.#rest(entry, dueMs, Math.min(Math.max(leftMs, 0), MAX_SLEEP_MS), () => {
      if (clock.wallMs() < dueMs) this.#renewAt(entry, dueMs);
      else this.request(entry, this.#priority(entry));
    });
  }

  /** `dueMs`: as operators are shown it. */
  #rest(entry: Entry, dueMs: number, delayMs: number, wake: () => void): void {
    entry.phase = 'resting';
    entry.dueMs = dueMs;
    if (entry.isOutdated) {
      this.request(entry, this.#priority(entry));
      return;
    }
    entry.timer = this.#deps.clock.after(delayMs, () => {
      if (!entry.isForgotten && entry.phase === 'resting') wake();
    });
  }

  #priority(entry: Entry): Priority {
    return usableMaterial(entry, this.#deps.clock.wallMs()) === undefined ? 'RealTime' : 'Background';
  }
}
