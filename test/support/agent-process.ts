/** One `culvert agent` or `culvert sidecar` process of a test mesh: what it said, how it ended, and its HTTP servers. */
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { LabNode } from '../../src/cli/lab/lab.ts';

export const MAIN = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url));
/** Far above what a loaded machine needs; only a hang gets here. */
const LINE_TIMEOUT_MS = 45_000;
const HTTP_TIMEOUT_MS = 45_000;

export type LogLine = Readonly<Record<string, unknown>> & { readonly message: string; readonly scope: string };
export type LineTest = (line: LogLine) => boolean;

export class AgentProcess implements AsyncDisposable {
  /** Where it runs. */
  readonly node: Pick<LabNode, 'name' | 'inside'>;
  readonly lines: LogLine[] = [];
  readonly stderr: string[] = [];
  /** Exit code; 128 when a signal ended it. */
  readonly exited: Promise<number>;
  readonly #child: ChildProcess;
  readonly #waiters = new Set<() => void>();

  /** `argv`: from the command on. `prefix`: what to start it by. */
  constructor(
    node: Pick<LabNode, 'name' | 'inside'>,
    argv: readonly string[],
    env: Readonly<Record<string, string>> = {},
    prefix: readonly string[] = [],
  ) {
    this.node = node;
    this.#child = node.inside.spawn([...prefix, process.execPath, MAIN, ...argv], {
      stdio: ['ignore', 'pipe', 'pipe'],
      // The nameservers of the machine are no part of a test.
      env: { ...process.env, NODE_OPTIONS: '', ISTIO_META_DNS_CAPTURE: 'false', ...env },
    });
    this.exited = once(this.#child, 'close').then(([code]) => (code as number | null) ?? 128);
    void this.exited.then(() => this.#wake());
    if (this.#child.stdout) createInterface(this.#child.stdout).on('line', (line) => this.#take(line));
    if (this.#child.stderr) createInterface(this.#child.stderr).on('line', (line) => this.stderr.push(line));
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  get isRunning(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** Resident memory now, bytes. */
  get rssBytes(): number {
    return 1024 * Number(/^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${this.pid}/status`, 'utf8'))?.[1]);
  }

  /** CPU time used so far, milliseconds. */
  get cpuMs(): number {
    const fields = readFileSync(`/proc/${this.pid}/stat`, 'utf8')
      .replace(/^.*\) /, '')
      .split(' ');
    return 10 * (Number(fields[11]) + Number(fields[12]));
  }

  /** The first line from index `after` on, past or future, for which `test` holds. */
  async line(test: LineTest, what: string, after = 0): Promise<LogLine> {
    const endMs = performance.now() + LINE_TIMEOUT_MS;
    let at = after;
    for (;;) {
      for (; at < this.lines.length; at++) {
        const line = this.lines[at];
        if (line !== undefined && test(line)) return line;
      }
      await this.#news(what, endMs);
    }
  }

  /** The line of a successor that has the node now. */
  tookOver(): Promise<LogLine> {
    return this.line(({ message }) => message === 'took the node over', 'line that it took the node over');
  }

  /** The access-log line of one connection: those of `direction` in which all `fields` are as given. */
  access(direction: 'inbound' | 'outbound', fields: Readonly<Record<string, unknown>>, after = 0): Promise<LogLine> {
    const wanted = { ...fields, scope: 'access', direction };
    return this.line(
      (line) => Object.entries(wanted).every(([name, value]) => line[name] === value),
      `access-log line ${JSON.stringify(wanted)}`,
      after,
    );
  }

  async get(path: string, port = 15_000): Promise<{ readonly status: number; readonly body: string }> {
    return this.#http(path, port, 'GET');
  }

  async post(path: string, port = 15_000): Promise<{ readonly status: number; readonly body: string }> {
    return this.#http(path, port, 'POST');
  }

  kill(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.isRunning) this.#child.kill('SIGKILL');
    await this.exited;
  }

  async #http(path: string, port: number, method: string): Promise<{ status: number; body: string }> {
    const socket = await this.node.inside.dial({ ip: '127.0.0.1', port });
    const { promise, resolve, reject } = Promise.withResolvers<{ status: number; body: string }>();
    const options = { path, method, host: 'localhost', timeout: HTTP_TIMEOUT_MS, createConnection: () => socket };
    const request = http.request(options, (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('end', () => resolve({ status: response.statusCode ?? 0, body: Buffer.concat(chunks).toString() }));
      response.on('error', reject);
    });
    // Dialled sockets are paused until somebody reads them.
    request.on('socket', () => socket.resume());
    request.on('timeout', () => request.destroy(new Error(`${method} ${path}: no answer in time`)));
    request.on('error', reject).end();
    return await promise.finally(() => socket.destroy());
  }

  #take(line: string): void {
    try {
      const parsed: unknown = JSON.parse(line);
      if (typeof parsed === 'object' && parsed !== null) this.lines.push(parsed as LogLine);
    } catch {
      this.stderr.push(line);
    }
    this.#wake();
  }

  #wake(): void {
    for (const wake of this.#waiters) wake();
  }

  /** Resolves at the next line; rejects, with what was said so far, when none comes or the agent has ended. */
  #news(what: string, endMs: number): Promise<void> {
    if (!this.isRunning) throw new Error(`the agent ended before ${what}: ${this.#report()}`);
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const timer = setTimeout(
      () => reject(new Error(`no ${what} in ${LINE_TIMEOUT_MS / 1000} s: ${this.#report()}`)),
      endMs - performance.now(),
    );
    this.#waiters.add(resolve);
    return promise.finally(() => {
      clearTimeout(timer);
      this.#waiters.delete(resolve);
    });
  }

  #report(): string {
    const last = this.lines.slice(-8).map((line) => JSON.stringify(line));
    return [...this.stderr.slice(-8), ...last].join('\n');
  }
}
