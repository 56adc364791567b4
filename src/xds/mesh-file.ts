/** Keeps the mesh of a file current: watches it, gives out each good version, and keeps the last good one meanwhile. */
import type { Clock } from '../base/clock.ts';
import { MeshError, messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { EMPTY_MESH, type MeshState } from '../model/mesh-index.ts';
import { readBounded, watchPath } from '../sys/files.ts';
import { issueText, type MeshFileIssue, parseMeshFile } from './local-file.ts';

/** Largest mesh file, bytes. */
const MAX_FILE_BYTES = 64 * 1024 * 1024;
/** Mistakes named in the log line; all of the first hundred are in `state`. */
const LOGGED_ISSUES = 5;

/** `inline`: the text itself, from a setting called `name`. It never changes. */
export type LocalMesh =
  | { readonly kind: 'file'; readonly path: string }
  | { readonly kind: 'inline'; readonly name: string; readonly text: string };

export interface MeshFileState {
  /** The file, or the setting that holds the text. */
  readonly path: string;
  /** Wall time of the last good version, milliseconds since the epoch; absent before the first. */
  readonly lastLoadedMs?: number;
  /** Why the file as it is now is not in use; absent while it is. */
  readonly lastError?: string;
  readonly issues: readonly MeshFileIssue[];
}

export interface MeshFileDeps {
  readonly clock: Clock;
  readonly log: Logger;
  /** Called with each good version, the first included; never with a bad one. */
  readonly onMesh: (state: MeshState) => void;
  /** Called when a version was refused; the last good one stays. */
  readonly onRefused?: () => void;
}

export class MeshFile implements Disposable {
  readonly #source: LocalMesh;
  readonly #path: string;
  readonly #deps: MeshFileDeps;
  #mesh: MeshState = EMPTY_MESH;
  #state: MeshFileState;
  #watch: Disposable | undefined;

  constructor(source: LocalMesh, deps: MeshFileDeps) {
    this.#source = source;
    this.#path = source.kind === 'file' ? source.path : source.name;
    this.#deps = deps;
    this.#state = { path: this.#path, issues: [] };
  }

  /** The last good version; empty before the first. */
  get mesh(): MeshState {
    return this.#mesh;
  }

  get state(): MeshFileState {
    return this.#state;
  }

  /** Loads once and keeps watching until disposed. Throws `CV-MESH-FILE` when there is no good version to start with. */
  start(): void {
    // Watched first: a version written while the first one is read must not be missed.
    if (this.#source.kind === 'file') {
      this.#watch = watchPath(this.#path, { clock: this.#deps.clock, onChange: () => this.reload() });
    }
    const error = this.#load();
    if (error === undefined) return;
    this[Symbol.dispose]();
    throw new MeshError('CV-MESH-FILE', error, { file: this.#path });
  }

  /** Looks at the file now. A bad version changes nothing but `state`. */
  reload(): void {
    const error = this.#load();
    if (error === undefined) return;
    this.#deps.log.warn?.('mesh file refused, the last good version stays', { reason: 'CV-MESH-FILE', error });
  }

  [Symbol.dispose](): void {
    this.#watch?.[Symbol.dispose]();
    this.#watch = undefined;
  }

  /** Text of the error, or `undefined` when the file was taken. */
  #load(): string | undefined {
    let text: string;
    try {
      text = this.#read();
    } catch (error) {
      return this.#refused(`${this.#path}: ${messageOf(error)}`, []);
    }
    const result = parseMeshFile(text);
    if (result.kind === 'refused') return this.#refused(refusalText(this.#path, result), result.issues);
    this.#accepted(result.state, result.warnings);
    return undefined;
  }

  #read(): string {
    if (this.#source.kind === 'inline') return this.#source.text;
    return new TextDecoder('utf-8', { fatal: true }).decode(readBounded(this.#source.path, MAX_FILE_BYTES));
  }

  #accepted(mesh: MeshState, warnings: readonly MeshFileIssue[]): void {
    const { clock, log, onMesh } = this.#deps;
    this.#mesh = mesh;
    this.#state = { path: this.#path, lastLoadedMs: clock.wallMs(), issues: [] };
    // In force before anybody reads that it is.
    onMesh(mesh);
    log.info?.('mesh file loaded', {
      file: this.#path,
      workloads: mesh.workloads.length,
      services: mesh.services.length,
      policies: mesh.policies.length,
      ...(warnings.length > 0 && { warnings: joined(this.#path, warnings) }),
    });
  }

  #refused(lastError: string, issues: readonly MeshFileIssue[]): string {
    this.#state = { ...this.#state, lastError, issues };
    this.#deps.onRefused?.();
    return lastError;
  }
}

function refusalText(
  path: string,
  result: { readonly issues: readonly MeshFileIssue[]; readonly issueCount: number },
): string {
  const more = result.issueCount - Math.min(result.issues.length, LOGGED_ISSUES);
  return `${joined(path, result.issues)}${more > 0 ? ` (and ${more} more)` : ''}`;
}

function joined(path: string, issues: readonly MeshFileIssue[]): string {
  return issues
    .slice(0, LOGGED_ISSUES)
    .map((issue) => issueText(path, issue))
    .join(' | ');
}
