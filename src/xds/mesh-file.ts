/** Keeps the mesh of a file current: watches it, gives out each good version, and keeps the last good one meanwhile. */
import type { Clock } from '../base/clock.ts';
import { MeshError, messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { oneAtATime } from '../base/one-at-a-time.ts';
import { EMPTY_MESH, type MeshState } from '../model/mesh-index.ts';
import { readBounded, watchPath } from '../sys/files.ts';
import { issueText, type MeshFileIssue, type MeshFileResult, parseMeshFile, parseMeshFileApart } from './local-file.ts';

/** Largest mesh file, bytes. */
const MAX_FILE_BYTES = 64 * 1024 * 1024;
/** Mistakes named in the log line; all of the first hundred are in `state`. */
const LOGGED_ISSUES = 5;
/** A longer text is parsed in another thread: YAML takes 0.1 s for so much. */
const MAX_CHARS_HERE = 64 * 1024;

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

type Outcome = MeshFileResult | { readonly kind: 'unreadable'; readonly error: unknown };

export class MeshFile implements Disposable {
  readonly #source: LocalMesh;
  readonly #path: string;
  readonly #deps: MeshFileDeps;
  readonly #look = oneAtATime(() => this.#reload());
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
      this.#watch = watchPath(this.#path, { clock: this.#deps.clock, onChange: this.#look });
    }
    // Here, however long it takes: nobody is served yet.
    const error = this.#take(this.#parsedHere());
    if (error === undefined) return;
    this[Symbol.dispose]();
    throw new MeshError('CV-MESH-FILE', error, { file: this.#path });
  }

  [Symbol.dispose](): void {
    this.#watch?.[Symbol.dispose]();
    this.#watch = undefined;
  }

  async #reload(): Promise<void> {
    const outcome = await this.#parsed().catch(unreadable);
    if (this.#watch === undefined) return;
    const error = this.#take(outcome);
    if (error === undefined) return;
    this.#deps.log.warn?.('mesh file refused, the last good version stays', { reason: 'CV-MESH-FILE', error });
  }

  #parsedHere(): Outcome {
    try {
      return parseMeshFile(this.#read());
    } catch (error) {
      return unreadable(error);
    }
  }

  async #parsed(): Promise<Outcome> {
    const text = this.#read();
    return text.length > MAX_CHARS_HERE ? await parseMeshFileApart(text) : parseMeshFile(text);
  }

  #read(): string {
    if (this.#source.kind === 'inline') return this.#source.text;
    return new TextDecoder('utf-8', { fatal: true }).decode(readBounded(this.#source.path, MAX_FILE_BYTES));
  }

  /** Text of the error, or `undefined` when it is in force. */
  #take(outcome: Outcome): string | undefined {
    switch (outcome.kind) {
      case 'unreadable':
        return this.#refused(`${this.#path}: ${messageOf(outcome.error)}`, []);
      case 'refused':
        return this.#refused(refusalText(this.#path, outcome), outcome.issues);
      case 'mesh':
        this.#accepted(outcome.state, outcome.warnings);
        return undefined;
    }
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

function unreadable(error: unknown): Outcome {
  return { kind: 'unreadable', error };
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
