/** A mesh CA inside the agent: signs SPIFFE leaves with an issuing certificate kept on disk, and follows changes of its files. */
import type { KeyObject } from 'node:crypto';
import type { Clock } from '../base/clock.ts';
import { MeshError, messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { parseSpiffeId } from '../model/spiffe.ts';
import { CaDirectory, type CaLifetimes, type CaState } from './ca-directory.ts';
import { BACKDATE_MS, buildLeaf } from './certificate-builder.ts';
import type { CertificateProvider, IssuedCertificate } from './certificate-provider.ts';
import { parseCsr } from './csr.ts';
import { derToPem } from './pem.ts';

const DAY_MS = 86_400_000;
const DEFAULT_LIFETIMES: CaLifetimes = { rootMs: 3650 * DAY_MS, issuingMs: 365 * DAY_MS };
/** How often the files are looked at (as ztunnel watches its root). */
const WATCH_MS = 2_000;
/** No leaf lives longer, whatever is asked for. */
const MAX_LEAF_MS = 90 * DAY_MS;

/** A certificate to be signed. */
export interface LeafOrder {
  readonly identity: string;
  readonly publicKey: KeyObject;
  readonly commonName?: string | undefined;
  readonly ttlMs: number;
}

export interface EmbeddedCaDeps {
  readonly clock: Clock;
  readonly log: Logger;
}

export class EmbeddedCa implements CertificateProvider {
  readonly title: string;
  readonly #directory: CaDirectory;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #listeners = new Set<(rootsPem: readonly string[]) => void>();
  #state: CaState;
  #fingerprint: string;
  #lastProblem = '';
  #timer: Disposable | undefined;
  #isClosed = false;

  private constructor(directory: CaDirectory, state: CaState, fingerprint: string, { clock, log }: EmbeddedCaDeps) {
    this.title = `embedded CA ${directory.path}`;
    this.#directory = directory;
    this.#state = state;
    this.#fingerprint = fingerprint;
    this.#clock = clock;
    this.#log = log;
    this.#watch();
  }

  /** Loads the CA in `path`, or makes it. Rejects with `CV-CA` when the files cannot be used; they are left as they are. */
  static async open(
    path: string,
    deps: EmbeddedCaDeps,
    lifetimes: CaLifetimes = DEFAULT_LIFETIMES,
  ): Promise<EmbeddedCa> {
    const directory = new CaDirectory(path, lifetimes, deps.log);
    // Taken before the files are read, here and below: what changes meanwhile is seen at the next look.
    const fingerprint = await directory.fingerprint();
    const state = await directory.open(deps.clock.wallMs());
    return new EmbeddedCa(directory, state, fingerprint, deps);
  }

  async issue(identity: string, csrPem: string, ttlMs: number, signal: AbortSignal): Promise<IssuedCertificate> {
    signal.throwIfAborted();
    const { publicKey, uris } = parseCsr(csrPem);
    if (uris.length !== 1 || uris[0] !== identity) {
      throw new MeshError('CV-CA', 'certificate request refused: it must ask for this identity alone', { identity });
    }
    return this.sign({ identity, publicKey, ttlMs });
  }

  /** Whether whoever asked may have that identity, and holds that key, is for the caller to know. */
  sign({ identity, publicKey, commonName, ttlMs }: LeafOrder): IssuedCertificate {
    if (parseSpiffeId(identity) === undefined) {
      throw new MeshError('CV-CA', 'certificate request refused: not a workload identity of a mesh', { identity });
    }
    const { issuing } = this.#state;
    if (issuing.privateKey === undefined) throw new MeshError('CV-CA', 'the issuing key is not loaded');
    const nowMs = this.#clock.wallMs();
    if (nowMs > issuing.facts.notAfterMs) {
      throw new MeshError('CV-CA', `the issuing certificate ${issuing.file} has expired`, { file: issuing.file });
    }
    const validity = { notBeforeMs: nowMs - BACKDATE_MS, notAfterMs: nowMs + Math.min(ttlMs, MAX_LEAF_MS) };
    const signer = { privateKey: issuing.privateKey, certificateDer: issuing.der };
    const leaf = buildLeaf({ identity, publicKey, commonName, ...validity }, signer);
    return { chainPem: [derToPem('CERTIFICATE', leaf), issuing.pem], rootsPem: this.rootsPem };
  }

  /** Own root first, then the extra ones, each once. */
  get rootsPem(): readonly string[] {
    const { root, extraRoots } = this.#state;
    return [...new Set([root.pem, ...extraRoots.map((extra) => extra.pem)])];
  }

  subscribeRoots(listener: (rootsPem: readonly string[]) => void): Disposable {
    this.#listeners.add(listener);
    return { [Symbol.dispose]: () => this.#listeners.delete(listener) };
  }

  [Symbol.dispose](): void {
    this.#isClosed = true;
    this.#timer?.[Symbol.dispose]();
    this.#listeners.clear();
  }

  #watch(): void {
    if (this.#isClosed) return;
    this.#timer = this.#clock.after(WATCH_MS, () => {
      void this.refresh().then(() => this.#watch());
    });
  }

  /** Looks at the files once: takes over what changed, and renews the issuing certificate at half of its life. Never rejects. */
  async refresh(): Promise<void> {
    try {
      const fingerprint = await this.#directory.fingerprint();
      if (fingerprint === this.#fingerprint && !this.#isRenewalDue()) return;
      const before = this.rootsPem;
      this.#state = await this.#directory.reload(this.#clock.wallMs());
      this.#fingerprint = fingerprint;
      this.#lastProblem = '';
      this.#announce(before);
    } catch (error) {
      this.#warnOnce(messageOf(error));
    }
  }

  #isRenewalDue(): boolean {
    const { notBeforeMs, notAfterMs } = this.#state.issuing.facts;
    return this.#state.root.privateKey !== undefined && this.#clock.wallMs() >= (notBeforeMs + notAfterMs) / 2;
  }

  #announce(before: readonly string[]): void {
    const now = this.rootsPem;
    if (now.join() === before.join()) return;
    this.#log.info?.('mesh roots changed', { roots: now.length });
    for (const listener of this.#listeners) listener(now);
  }

  #warnOnce(problem: string): void {
    if (problem === this.#lastProblem) return;
    this.#lastProblem = problem;
    this.#log.warn?.('CA files changed and cannot be used; the last good ones stay', {
      reason: 'CV-CA',
      error: problem,
    });
  }
}
