/** The revocation lists of a file (`CRL_PATH`): watched, checked, handed on; the last good ones stay. */
import { X509Certificate } from 'node:crypto';
import type { Clock } from '../base/clock.ts';
import { MeshError, messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { readBounded, watchPath } from '../sys/files.ts';
import { type Authority, authorityOf } from './authority.ts';
import { type Crl, crlBlocks, readCrls, unsignedText } from './crl.ts';

/** A ConfigMap holds 1 MiB at most. */
const MAX_FILE_BYTES = 8 * 1024 * 1024;
/** Writers of files take several steps; this long after the last one the file is read. */
const DEBOUNCE_MS = 2_000;

export interface CrlFileDeps {
  readonly clock: Clock;
  readonly log: Logger;
  /** Certificates (PEM) of the CAs that this agent knows: what they signed must verify. */
  readonly knownAuthorities: () => readonly string[];
  /** DER of every list, whenever they changed. */
  readonly onLists: (ders: readonly Uint8Array[]) => void;
  readonly onLoad: (outcome: 'ok' | 'failed') => void;
}

export interface CrlFileState {
  readonly path: string;
  readonly lists: number;
  /** Certificates that are revoked. */
  readonly revoked: number;
  readonly loadedMs?: number;
  /** Why the newest version of the file is not in force. */
  readonly lastError?: string;
}

export class CrlFile implements Disposable {
  readonly #path: string;
  readonly #deps: CrlFileDeps;
  readonly #authorities = new Map<string, Authority>();
  #lists: readonly Crl[] = [];
  #loadedMs: number | undefined;
  #problem: string | undefined;
  #watch: Disposable | undefined;
  #loading: Promise<void> = Promise.resolve();

  private constructor(path: string, deps: CrlFileDeps) {
    this.#path = path;
    this.#deps = deps;
  }

  /** Loads what is there and watches from then on. Never rejects: a file that cannot be used is reported and waited for. */
  static async open(path: string, deps: CrlFileDeps): Promise<CrlFile> {
    const file = new CrlFile(path, deps);
    file.#watch = watchPath(path, { clock: deps.clock, debounceMs: DEBOUNCE_MS, onChange: () => void file.reload() });
    await file.reload();
    return file;
  }

  /** Reads the file again; one at a time, in order. */
  reload(): Promise<void> {
    this.#loading = this.#loading.then(() => this.#load());
    return this.#loading;
  }

  /** A CA may have become known: says so when a list in force claims to be from it and is not. Such a list revokes nothing. */
  authoritiesChanged(): void {
    if (this.#lists.length === 0) return;
    try {
      this.#verify(this.#lists);
    } catch (error) {
      this.#failed(messageOf(error));
    }
  }

  get state(): CrlFileState {
    return {
      path: this.#path,
      lists: this.#lists.length,
      revoked: this.#lists.reduce((sum, { serials }) => sum + serials.size, 0),
      ...(this.#loadedMs !== undefined && { loadedMs: this.#loadedMs }),
      ...(this.#problem !== undefined && { lastError: this.#problem }),
    };
  }

  [Symbol.dispose](): void {
    this.#watch?.[Symbol.dispose]();
  }

  async #load(): Promise<void> {
    const { clock, log, onLists, onLoad } = this.#deps;
    try {
      const ders = crlBlocks(readBounded(this.#path, MAX_FILE_BYTES));
      const lists = await readCrls(ders);
      const unknown = this.#verify(lists);
      this.#lists = lists;
      this.#loadedMs = clock.wallMs();
      this.#problem = undefined;
      const stale = lists.filter((list) => list.isStale(clock.wallMs())).length;
      const { revoked } = this.state;
      log.info?.('revocation lists loaded', { path: this.#path, lists: lists.length, revoked, stale, unknown });
      onLoad('ok');
      onLists(ders);
    } catch (error) {
      this.#failed(messageOf(error));
      onLoad('failed');
    }
  }

  /** Throws when a list that names a known CA is not signed by it. Returns how many name none, which may be of remote clusters. */
  #verify(lists: readonly Crl[]): number {
    const authorities = this.#deps.knownAuthorities().map((pem) => this.#authority(pem));
    let unknown = 0;
    for (const list of lists) {
      const [named, ...more] = authorities.filter((authority) => list.isNamedAfter(authority));
      if (named === undefined) unknown += 1;
      else if (![named, ...more].some((authority) => list.isFrom(authority))) {
        throw new MeshError('CV-CRL', unsignedText(named));
      }
    }
    return unknown;
  }

  #authority(pem: string): Authority {
    let authority = this.#authorities.get(pem);
    if (authority === undefined) {
      if (this.#authorities.size >= MAX_AUTHORITIES) this.#authorities.clear();
      authority = authorityOf(new X509Certificate(pem));
      this.#authorities.set(pem, authority);
    }
    return authority;
  }

  #failed(problem: string): void {
    if (problem === this.#problem) return;
    this.#problem = problem;
    const kept = this.#loadedMs === undefined ? 'nothing is revoked meanwhile' : 'the last good lists stay';
    this.#deps.log.warn?.(`revocation lists cannot be used; ${kept}`, {
      reason: 'CV-CRL',
      path: this.#path,
      error: problem,
    });
  }
}

const MAX_AUTHORITIES = 1024;
