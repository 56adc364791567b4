/** Certificates that something else writes into a directory, for example the CSI driver of cert-manager: watched, never written. */
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { Clock } from '../base/clock.ts';
import { MeshError, messageOf, toMeshError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { watchPath } from '../sys/files.ts';
import { rfc3339Seconds } from '../wire/x509-time.ts';
import { type CertificatePair, fault, readCertificatePair } from './certificate-pair.ts';
import type { CertificateProvider, IssuedCertificate, RenewalListener } from './certificate-provider.ts';

/** Directories below the root, one identity each. */
const MAX_DIRECTORIES = 1_000;
/** Whoever does not swap directories writes certificate and key one after the other. */
const DEBOUNCE_MS = 1_000;
/** Between two looks at files that were refused and have not changed since. */
const AGAIN_MS = 10_000;

export interface CertificateFilesDeps {
  readonly clock: Clock;
  readonly log: Logger;
  /** Counts versions of files that cannot be used. */
  readonly onProblem: (error: MeshError) => void;
}

/** One directory with its files: the last good pair, and what is wrong with the files as they are. */
interface Place {
  readonly watch: Disposable;
  pair?: CertificatePair | undefined;
  problem?: string | undefined;
}

/**
 * Looks for pairs in `root` itself and in each directory right below it. Which identity a pair is for says the certificate,
 * not the name of a directory. A pair that is broken leaves the last good one of its directory in use; a directory that
 * is gone takes its pair along.
 */
export class CertificateFiles implements CertificateProvider, Disposable {
  readonly title: string;
  readonly #root: string;
  readonly #deps: CertificateFilesDeps;
  readonly #places = new Map<string, Place>();
  readonly #listeners = new Set<RenewalListener>();
  readonly #exposed = new Set<string>();
  #problem: string | undefined;
  #lastAgainMs: number;

  constructor(root: string, deps: CertificateFilesDeps) {
    this.title = `certificate files ${root}`;
    this.#root = root;
    this.#deps = deps;
    this.#lastAgainMs = deps.clock.monotonicMs();
    this.#enter(root);
    this.#look();
  }

  async issue(identity: string): Promise<IssuedCertificate> {
    if (this.#valid(identity) === undefined) this.#lookAgain();
    const good = this.#valid(identity);
    if (good !== undefined) return good.issued;
    const [newest] = this.#newestFirst(identity);
    if (newest === undefined) throw this.#missing(identity);
    throw fault(newest.chainFile, `it expired at ${rfc3339Seconds(newest.notAfterMs)} and was not renewed`);
  }

  subscribeRenewals(listener: RenewalListener): Disposable {
    this.#listeners.add(listener);
    return { [Symbol.dispose]: () => void this.#listeners.delete(listener) };
  }

  [Symbol.dispose](): void {
    for (const { watch } of this.#places.values()) watch[Symbol.dispose]();
    this.#places.clear();
    this.#listeners.clear();
  }

  #valid(identity: string): CertificatePair | undefined {
    const nowMs = this.#deps.clock.wallMs();
    return this.#newestFirst(identity).find(({ notAfterMs }) => nowMs <= notAfterMs);
  }

  #newestFirst(identity: string): CertificatePair[] {
    return [...this.#places.values()]
      .flatMap(({ pair }) => (pair?.identities.includes(identity) === true ? pair : []))
      .toSorted((a, b) => b.notBeforeMs - a.notBeforeMs);
  }

  /** What was refused for its dates is good once the clock of the node is set right. */
  #lookAgain(): void {
    const nowMs = this.#deps.clock.monotonicMs();
    if (nowMs - this.#lastAgainMs < AGAIN_MS) return;
    this.#lastAgainMs = nowMs;
    for (const [directory, { problem }] of this.#places) if (problem !== undefined) this.#load(directory);
  }

  #missing(identity: string): MeshError {
    const problem = this.#problem ?? this.#places.values().find((place) => place.problem !== undefined)?.problem;
    const text = `no certificate for this identity below ${this.#root}`;
    return new MeshError('CV-CERT-FILES', problem === undefined ? text : `${text}; ${problem}`, { identity });
  }

  #enter(directory: string): void {
    const { clock } = this.#deps;
    const onChange = (): void => (directory === this.#root ? this.#look() : this.#load(directory));
    const watch = watchPath(directory, { clock, debounceMs: DEBOUNCE_MS, onChange });
    this.#places.set(directory, { watch });
    if (directory !== this.#root) this.#load(directory);
  }

  /** The root changed: its own pair, and directories that came or went. */
  #look(): void {
    const found = new Set([this.#root, ...this.#directories()]);
    for (const directory of found) if (!this.#places.has(directory)) this.#enter(directory);
    for (const [directory, place] of this.#places) {
      if (found.has(directory)) continue;
      place.watch[Symbol.dispose]();
      this.#places.delete(directory);
      if (place.pair !== undefined) this.#exposed.delete(place.pair.keyFile);
      this.#announce(place.pair?.identities ?? []);
    }
    this.#load(this.#root);
  }

  /** Hidden ones are the versions of a Kubernetes volume. */
  #directories(): string[] {
    try {
      const names = readdirSync(this.#root).filter((name) => !name.startsWith('.'));
      const paths = names.map((name) => join(this.#root, name)).filter((path) => isDirectory(path));
      const tooMany = new MeshError('CV-CERT-FILES', `more than ${MAX_DIRECTORIES} directories in ${this.#root}`);
      this.#report(paths.length > MAX_DIRECTORIES ? tooMany : undefined);
      return paths.sort().slice(0, MAX_DIRECTORIES);
    } catch (error) {
      this.#report(fault(this.#root, messageOf(error), error));
      return [...this.#places.keys()];
    }
  }

  #report(error: MeshError | undefined): void {
    if (error !== undefined && error.message !== this.#problem) {
      this.#deps.onProblem(error);
      this.#deps.log.warn?.('certificate files cannot be read', { reason: error.code, error: error.message });
    }
    this.#problem = error?.message;
  }

  #load(directory: string): void {
    const place = this.#places.get(directory);
    if (place === undefined) return;
    const { pair: former } = place;
    try {
      place.pair = readCertificatePair(directory, this.#deps.clock.wallMs()) ?? former;
      place.problem = undefined;
    } catch (error) {
      this.#refused(place, toMeshError(error));
    }
    const { pair } = place;
    if (pair === undefined || isSame(pair, former)) return;
    this.#took(pair);
    this.#announce([...new Set([...pair.identities, ...(former?.identities ?? [])])]);
  }

  #took({ identities, chainFile, keyFile, isKeyExposed, notAfterMs }: CertificatePair): void {
    const { log } = this.#deps;
    const until = rfc3339Seconds(notAfterMs);
    log.info?.('certificate file loaded', { file: chainFile, identity: identities.join(' '), until });
    if (!isKeyExposed || this.#exposed.has(keyFile)) return;
    this.#exposed.add(keyFile);
    log.warn?.('this key can be read by other users; give it mode 0600', { file: keyFile });
  }

  #refused(place: Place, error: MeshError): void {
    if (error.message === place.problem) return;
    place.problem = error.message;
    this.#deps.onProblem(error);
    const kept = place.pair === undefined ? '' : '; the last good one stays';
    this.#deps.log.warn?.(`certificate file refused${kept}`, { reason: error.code, error: error.message });
  }

  #announce(identities: readonly string[]): void {
    if (identities.length === 0) return;
    for (const listener of [...this.#listeners]) listener(identities, 'renewed');
  }
}

function isDirectory(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
}

function isSame(a: CertificatePair, b: CertificatePair | undefined): boolean {
  return JSON.stringify(a.issued) === JSON.stringify(b?.issued);
}
