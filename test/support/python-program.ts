/** A Python program that prints one JSON object per event and takes one JSON order per line: a peer that nobody here wrote. */
import { type ChildProcess, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';

/** The Python that Debian's packages belong to. */
export const PYTHON = '/usr/bin/python3';
const WAIT_MS = 30_000;

/** Reason to skip; never in CI, where a missing package is a failure. */
export function skipWithoutPython(module: string, debianPackage: string): string | false {
  const isThere =
    process.env['MESH_REQUIRE_ROOT'] === '1' || spawnSync(PYTHON, ['-c', `import ${module}`]).status === 0;
  return isThere ? false : `needs the Debian package ${debianPackage}`;
}

export type ProgramEvent = Readonly<Record<string, unknown>> & { readonly event: string };

export class PythonProgram implements AsyncDisposable {
  readonly events: ProgramEvent[] = [];
  readonly #child: ChildProcess;
  readonly #exited: Promise<unknown>;
  readonly #news = new Set<() => void>();
  #said = '';

  /** `child` has pipes for all three. */
  constructor(child: ChildProcess) {
    this.#child = child;
    this.#exited = once(child, 'close').then(() => this.#wake());
    child.stderr?.on('data', (chunk: Buffer) => (this.#said += chunk.toString()));
    child.stdin?.on('error', () => undefined);
    if (child.stdout !== null) {
      createInterface(child.stdout).on('line', (line) => {
        this.events.push(JSON.parse(line) as ProgramEvent);
        this.#wake();
      });
    }
  }

  order(order: Readonly<Record<string, unknown>>): void {
    this.#child.stdin?.write(`${JSON.stringify(order)}\n`);
  }

  /** The event number `count` of this kind (and with these fields), past or future. */
  async event(kind: string, count = 1, fields: Readonly<Record<string, unknown>> = {}): Promise<ProgramEvent> {
    for (;;) {
      const found = this.events.filter(
        (event) => event.event === kind && Object.entries(fields).every(([name, value]) => event[name] === value),
      );
      const event = found[count - 1];
      if (event !== undefined) return event;
      await this.#wait(kind);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#exited;
  }

  #wake(): void {
    for (const wake of this.#news) wake();
  }

  #wait(kind: string): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const report = (): string => `${this.#said}\n${this.events.map((event) => JSON.stringify(event)).join('\n')}`;
    if (this.#child.exitCode !== null) throw new Error(`python ended before "${kind}": ${report()}`);
    const timer = setTimeout(() => reject(new Error(`no event "${kind}": ${report()}`)), WAIT_MS);
    this.#news.add(resolve);
    return promise.finally(() => {
      clearTimeout(timer);
      this.#news.delete(resolve);
    });
  }
}
