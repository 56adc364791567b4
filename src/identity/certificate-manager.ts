/** Certificates of the identities on this node: requested once, renewed at half life, used to their last second. */
import { createPrivateKey } from 'node:crypto';
import type { Clock } from '../base/clock.ts';
import { MeshError, messageOf, toMeshError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { Random } from '../base/random.ts';
import { renewalDueMs, retryDelayMs } from '../model/rotation.ts';
import type { TlsMaterial } from '../model/verdict.ts';
import {
  type Entry,
  entrySnapshot,
  entryStatus,
  failureText,
  type IdentityStatus,
  newEntry,
  unavailable,
  usableMaterial,
} from './certificate-entry.ts';
import type { CertificateProvider } from './certificate-provider.ts';
import type { IdentitySnapshot } from './certificate-snapshot.ts';
import type { CertificateVault, KeptCertificate } from './certificate-vault.ts';
import { FailureLog } from './failure-log.ts';
import { issueOnce } from './issue-attempt.ts';
import { IssueQueue, type Priority } from './issue-queue.ts';
import { adoptIssued, type Held, withMoreRoots, withRoots } from './issued-certificate.ts';

/** facts/datapath.md §1.5. */
const DEFAULT_TTL_MS = 24 * 3_600_000;
/** facts/operations.md §6.4. */
const CONCURRENCY = 8;
/** Longest a handshake waits for its first certificate, queueing included. */
const GET_TIMEOUT_MS = 15_000;
/** A node runs a few hundred pods; more identities than this are a fault somewhere else. */
const MAX_IDENTITIES = 10_000;
/** Sleeps are cut to this, so that a wall clock that was set right, or a suspended machine, is noticed. */
const MAX_SLEEP_MS = 600_000;

export interface CertificateManagerDeps {
  readonly provider: CertificateProvider;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly observer?: CertificateObserver;
  /** Certificates outlive the agent in it. Absent: every start asks the provider. */
  readonly vault?: CertificateVault | undefined;
}

/** For metrics. Called once for each attempt. */
interface CertificateObserver {
  issued(identity: string, durationMs: number): void;
  failed(identity: string, error: MeshError): void;
}

export class CertificateManager {
  readonly #deps: CertificateManagerDeps;
  readonly #ttlMs: number;
  readonly #entries = new Map<string, Entry>();
  readonly #queue = new IssueQueue(CONCURRENCY);
  readonly #listeners = new Set<(identity: string) => void>();
  readonly #failures = new FailureLog();
  readonly #subscriptions = new DisposableStack();
  #latestRoots: readonly string[] | undefined;

  constructor(deps: CertificateManagerDeps, ttlMs = DEFAULT_TTL_MS) {
    this.#deps = deps;
    this.#ttlMs = ttlMs;
    const { provider } = deps;
    this.#subscriptions.use(provider.subscribeRoots?.((rootsPem) => this.#rootsChanged(rootsPem)));
    this.#subscriptions.use(
      provider.subscribeRenewals?.((identities, change) => this.#renewed(identities, change === 'withdrawn')),
    );
  }

  /** Valid material now, or after the attempt under way; rejects with `CV-CERT-UNAVAILABLE` while the CA does not deliver. */
  async get(identity: string): Promise<TlsMaterial> {
    const entry = this.#entries.get(identity) ?? this.#add(identity, 'RealTime');
    // What nobody missed until now was tried at long intervals.
    if (!entry.isMissed && this.#usable(entry) === undefined) this.#request(entry, 'RealTime');
    entry.isMissed = true;
    if (this.#usable(entry) === undefined && entry.phase !== 'resting') {
      this.#queue.promote(identity);
      await this.#ended(entry);
    }
    const material = this.#usable(entry);
    if (material === undefined) throw unavailable(entry);
    return material;
  }

  /** Asks for a certificate before the first handshake needs it. Silently dropped when there are too many identities. */
  prefetch(identity: string): void {
    if (!this.#entries.has(identity) && this.#entries.size < MAX_IDENTITIES) this.#add(identity, 'Warmup');
  }

  /** Ends renewal and drops the key: no pod of this node uses the identity any more. Open tunnels are not touched. */
  forget(identity: string): void {
    const entry = this.#entries.get(identity);
    if (entry === undefined) return;
    this.#entries.delete(identity);
    this.#stop(entry);
    this.#announce(identity);
  }

  /** Where certificates come from, for operators. */
  get source(): string {
    return this.#deps.provider.title;
  }

  /** As `/config_dump` shows them, sorted by identity. */
  snapshot(): IdentitySnapshot[] {
    return this.#sorted().map((entry) => entrySnapshot(entry, this.#deps.clock.wallMs()));
  }

  /** What each identity waits for and why, sorted by identity. */
  statuses(): IdentityStatus[] {
    return this.#sorted().map((entry) => entryStatus(entry, this.#deps.clock.wallMs()));
  }

  /** End of each certificate in use, for the expiry metric. */
  expiries(): { readonly identity: string; readonly notAfterMs: number }[] {
    return [...this.#entries.values()].flatMap(({ identity, held }) =>
      held === undefined ? [] : [{ identity, notAfterMs: held.validity.notAfterMs }],
    );
  }

  /** Wall time at which the first certificate in use expires: the horizon after which a silent CA becomes an outage. */
  earliestExpiryMs(): number | undefined {
    const ends = [...this.#entries.values()].flatMap((entry) => entry.held?.validity.notAfterMs ?? []);
    return ends.length === 0 ? undefined : ends.reduce((first, end) => Math.min(first, end));
  }

  /** Every CA certificate we were given, root or intermediate, PEM, each once. */
  authorities(): readonly string[] {
    const all = [...this.#entries.values()].flatMap(({ held }) => held ?? []);
    return [...new Set(all.flatMap(({ intermediatesPem, material }) => [...intermediatesPem, ...material.rootsPem]))];
  }

  /** Calls back whenever the material of an identity changed or was dropped. */
  subscribe(listener: (identity: string) => void): Disposable {
    this.#listeners.add(listener);
    return { [Symbol.dispose]: () => this.#listeners.delete(listener) };
  }

  [Symbol.dispose](): void {
    this.#subscriptions.dispose();
    this.#listeners.clear();
    this.#deps.vault?.flush();
    for (const entry of this.#entries.values()) this.#stop(entry);
    this.#entries.clear();
  }

  #add(identity: string, priority: Priority): Entry {
    if (this.#entries.size >= MAX_IDENTITIES) {
      throw new MeshError('CV-LIMIT', 'too many identities on this node', { limit: MAX_IDENTITIES });
    }
    const entry = newEntry(identity);
    this.#entries.set(identity, entry);
    const held = this.#kept(identity);
    if (held === undefined) this.#request(entry, priority);
    else {
      entry.held = held;
      this.#rest(entry, this.#renewalMs(held));
    }
    return entry;
  }

  /** What an agent before us had, if it still is good. */
  #kept(identity: string): Held | undefined {
    const { vault, clock, log } = this.#deps;
    const kept = vault?.take(identity);
    if (kept === undefined) return undefined;
    try {
      return adoptIssued(identity, kept, createPrivateKey(kept.keyPem), clock.wallMs());
    } catch (error) {
      log.debug?.('kept certificate is not used', { identity, error: messageOf(error) });
      return undefined;
    }
  }

  #inUse(): readonly KeptCertificate[] {
    return [...this.#entries.values()].flatMap(({ identity, held }) => {
      if (held === undefined) return [];
      const { keyPem, chainPem, rootsPem } = held.material;
      return [{ identity, keyPem, chainPem: [chainPem], rootsPem }];
    });
  }

  /** Queues the next attempt; nothing while one is queued or under way: one flight per identity. */
  #request(entry: Entry, priority: Priority): void {
    if (entry.phase !== 'resting' || entry.isForgotten) return;
    entry.timer?.[Symbol.dispose]();
    entry.phase = 'queued';
    entry.attempt = Promise.withResolvers<void>();
    this.#queue.add(entry.identity, priority, () => this.#attempt(entry));
  }

  async #attempt(entry: Entry): Promise<void> {
    if (entry.isForgotten) return;
    const { attempt } = entry;
    entry.phase = 'issuing';
    entry.isOutdated = false;
    const startedMs = this.#deps.clock.monotonicMs();
    try {
      const held = await this.#issue(entry);
      if (entry.isForgotten) return;
      this.#succeeded(entry, held);
      this.#deps.observer?.issued(entry.identity, this.#deps.clock.monotonicMs() - startedMs);
    } catch (error) {
      if (!entry.isForgotten) this.#failed(entry, toMeshError(error, 'CV-CA'));
    } finally {
      attempt.resolve();
    }
  }

  async #issue(entry: Entry): Promise<Held> {
    const held = await issueOnce(entry, this.#deps, this.#ttlMs);
    // The roots may have changed while the answer was on its way.
    return this.#latestRoots === undefined ? held : (withRoots(held, this.#latestRoots) ?? held);
  }

  #succeeded(entry: Entry, held: Held): void {
    const isNew = entry.held?.material.serial !== held.material.serial;
    entry.held = held;
    entry.error = undefined;
    entry.failures = 0;
    this.#rest(entry, this.#renewalMs(held));
    const mended = this.#failures.recovered(entry.identity);
    if (mended !== undefined) this.#deps.log.info?.('certificates are issued again', { was: mended });
    if (isNew) this.#announce(entry.identity);
    if (this.#deps.provider.hasSharedBundle === true) this.#spreadRoots(held);
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
    const retryMs = nowMs + retryDelayMs(entry.failures, { leftMs, isMissed: entry.isMissed }, this.#deps.random);
    entry.error = error;
    entry.failures += 1;
    this.#rest(entry, retryMs);
    this.#deps.observer?.failed(entry.identity, error);
    const isNews = this.#failures.failed(entry.identity, error.message);
    const write = isNews ? this.#deps.log.warn : this.#deps.log.debug;
    const { identity, failures } = entry;
    write?.(failureText(entry, nowMs, retryMs), { reason: error.code, identity, failures });
  }

  /** Waits until wall time `dueMs`, then requests. Looks at the wall clock again at least every `MAX_SLEEP_MS`. */
  #rest(entry: Entry, dueMs: number): void {
    entry.phase = 'resting';
    entry.dueMs = dueMs;
    if (entry.isOutdated) {
      this.#request(entry, this.#requestPriority(entry));
      return;
    }
    const leftMs = dueMs - this.#deps.clock.wallMs();
    entry.timer = this.#deps.clock.after(Math.min(Math.max(leftMs, 0), MAX_SLEEP_MS), () => {
      if (entry.isForgotten || entry.phase !== 'resting') return;
      if (this.#deps.clock.wallMs() < dueMs) this.#rest(entry, dueMs);
      else this.#request(entry, this.#requestPriority(entry));
    });
  }

  /** Certificates that lead to the new roots take them over; the others are replaced at once and serve until then. */
  #rootsChanged(rootsPem: readonly string[]): void {
    this.#latestRoots = rootsPem;
    for (const entry of this.#entries.values()) {
      if (entry.held === undefined) continue;
      const held = withRoots(entry.held, rootsPem);
      if (held === undefined) this.#request(entry, 'RealTime');
      if (held === undefined || held === entry.held) continue;
      entry.held = held;
      this.#announce(entry.identity);
    }
  }

  /** The provider has something new for these: taken at once, or after the attempt under way. */
  #renewed(identities: readonly string[], isWithdrawn: boolean): void {
    for (const identity of identities) {
      const entry = this.#entries.get(identity);
      if (entry === undefined) continue;
      if (isWithdrawn && entry.held !== undefined) {
        delete entry.held;
        this.#announce(identity);
      }
      entry.isOutdated = true;
      this.#request(entry, this.#requestPriority(entry));
    }
  }

  /** Roots that came with one certificate are trusted with every other one, so that peers can rotate before us. */
  #spreadRoots({ material }: Held): void {
    for (const entry of this.#entries.values()) {
      const held = entry.held && withMoreRoots(entry.held, material.rootsPem);
      if (held === undefined) continue;
      entry.held = held;
      this.#announce(entry.identity);
    }
  }

  #requestPriority(entry: Entry): Priority {
    return this.#usable(entry) === undefined ? 'RealTime' : 'Background';
  }

  #usable(entry: Entry): TlsMaterial | undefined {
    return usableMaterial(entry, this.#deps.clock.wallMs());
  }

  #sorted(): Entry[] {
    return [...this.#entries.values()].sort((a, b) => (a.identity < b.identity ? -1 : 1));
  }

  async #ended(entry: Entry): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    using _deadline = this.#deps.clock.after(GET_TIMEOUT_MS, resolve);
    await Promise.race([entry.attempt.promise, promise]);
  }

  #stop(entry: Entry): void {
    entry.isForgotten = true;
    entry.error = new MeshError('CV-CERT-UNAVAILABLE', 'no pod of this node uses the identity any more');
    entry.timer?.[Symbol.dispose]();
    this.#queue.remove(entry.identity);
    this.#failures.recovered(entry.identity);
    entry.abort?.abort(entry.error);
    entry.attempt.resolve();
  }

  #announce(identity: string): void {
    this.#deps.vault?.changed(() => this.#inUse());
    for (const listener of this.#listeners) listener(identity);
  }
}
