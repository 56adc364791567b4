/** Certificates of the identities on this node: who has one, who is given it, and which roots it is trusted with. */
import { createPrivateKey } from 'node:crypto';
import { MeshError, messageOf } from '../base/errors.ts';
import type { TlsMaterial } from '../model/verdict.ts';
import {
  type Entry,
  entrySnapshot,
  entryStatus,
  type IdentityStatus,
  newEntry,
  unavailable,
  usableMaterial,
} from './certificate-entry.ts';
import { CertificateRenewal, type RenewalDeps } from './certificate-renewal.ts';
import type { IdentitySnapshot } from './certificate-snapshot.ts';
import type { CertificateVault, KeptCertificate } from './certificate-vault.ts';
import type { Priority } from './issue-queue.ts';
import { adoptIssued, type Held, withMoreRoots, withRoots } from './issued-certificate.ts';

/** A node runs a few hundred pods; more identities than this are a fault somewhere else. */
const MAX_IDENTITIES = 10_000;

export interface CertificateManagerDeps extends Omit<RenewalDeps, 'withCurrentRoots' | 'onIssued'> {
  /** Certificates outlive the agent in it. Absent: every start asks the provider. */
  readonly vault?: CertificateVault | undefined;
  /** From the process before this one. Absent: certificates are not to go from process to process. */
  readonly inherited?: readonly KeptCertificate[] | undefined;
}

export class CertificateManager {
  readonly #deps: CertificateManagerDeps;
  readonly #entries = new Map<string, Entry>();
  readonly #renewal: CertificateRenewal;
  readonly #listeners = new Set<(identity: string) => void>();
  readonly #subscriptions = new DisposableStack();
  readonly #inherited: Map<string, KeptCertificate>;
  #latestRoots: readonly string[] | undefined;

  constructor(deps: CertificateManagerDeps) {
    this.#deps = deps;
    const { provider, inherited = [] } = deps;
    this.#inherited = new Map(inherited.map((kept) => [kept.identity, kept]));
    const renewal: RenewalDeps = {
      ...deps,
      // They may have changed while the answer was on its way.
      withCurrentRoots: (held) => (this.#latestRoots && withRoots(held, this.#latestRoots)) ?? held,
      onIssued: (entry, held, isNew) => this.#issued(entry, held, isNew),
    };
    this.#renewal = new CertificateRenewal(renewal);
    this.#subscriptions.use(provider.subscribeRoots?.((rootsPem) => this.#rootsChanged(rootsPem)));
    this.#subscriptions.use(
      provider.subscribeRenewals?.((identities, change) => this.#renewed(identities, change === 'withdrawn')),
    );
  }

  /** Valid material now, or after the attempt under way; rejects with `CV-CERT-UNAVAILABLE` while the CA does not deliver. */
  async get(identity: string): Promise<TlsMaterial> {
    const entry = this.#entries.get(identity) ?? this.#add(identity, 'RealTime');
    // What nobody missed until now was tried at long intervals.
    if (!entry.isMissed && this.#usable(entry) === undefined) this.#renewal.request(entry, 'RealTime');
    entry.isMissed = true;
    if (this.#usable(entry) === undefined && entry.phase !== 'resting') await this.#renewal.ended(entry);
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
    this.#renewal.stop(entry);
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
    for (const entry of this.#entries.values()) this.#renewal.stop(entry);
    this.#entries.clear();
  }

  /** What another process of this node needs to go on with them; nothing when certificates have another home than a CA. */
  inUse(): readonly KeptCertificate[] {
    if (this.#deps.inherited === undefined) return [];
    return this.#inUse();
  }

  /** Nobody asks any more for what was inherited and not used: no key stays in memory for nothing. */
  forgetInherited(): void {
    this.#inherited.clear();
  }

  /** Another process keeps certificates on disk from now on. */
  keepNoMore(): void {
    this.#deps.vault?.retire();
  }

  #add(identity: string, priority: Priority): Entry {
    if (this.#entries.size >= MAX_IDENTITIES) {
      throw new MeshError('CV-LIMIT', 'too many identities on this node', { limit: MAX_IDENTITIES });
    }
    const entry = newEntry(identity);
    this.#entries.set(identity, entry);
    const held = this.#kept(identity);
    if (held === undefined) this.#renewal.request(entry, priority);
    else this.#renewal.hold(entry, held);
    return entry;
  }

  /** What an agent before us had, if it still is good. */
  #kept(identity: string): Held | undefined {
    const { vault, clock, log } = this.#deps;
    // What is on disk may be older.
    const stored = vault?.take(identity);
    const kept = this.#inherited.get(identity) ?? stored;
    this.#inherited.delete(identity);
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

  #issued(entry: Entry, held: Held, isNew: boolean): void {
    if (isNew) this.#announce(entry.identity);
    if (this.#deps.provider.hasSharedBundle === true) this.#spreadRoots(held);
  }

  /** Certificates that lead to the new roots take them over; the others are replaced at once and serve until then. */
  #rootsChanged(rootsPem: readonly string[]): void {
    this.#latestRoots = rootsPem;
    for (const entry of this.#entries.values()) {
      if (entry.held === undefined) continue;
      const held = withRoots(entry.held, rootsPem);
      if (held === undefined) this.#renewal.request(entry, 'RealTime');
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
      this.#renewal.renew(entry);
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

  #usable(entry: Entry): TlsMaterial | undefined {
    return usableMaterial(entry, this.#deps.clock.wallMs());
  }

  #sorted(): Entry[] {
    return [...this.#entries.values()].sort((a, b) => (a.identity < b.identity ? -1 : 1));
  }

  #announce(identity: string): void {
    this.#deps.vault?.changed(() => this.#inUse());
    for (const listener of this.#listeners) listener(identity);
  }
}
