/** One `culvert agent` in the namespace of its node, as the demo starts, kills and reads it. */
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdirSync, openSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { PORTS } from '../../model/ports.ts';
import { http } from '../../sys/http.ts';
import type { LabNode } from '../lab/lab.ts';
import { until, within } from './waiting.ts';

/** Runs from sources and from `dist/` alike. */
const PROGRAM = fileURLToPath(new URL(`../main${path.extname(import.meta.url)}`, import.meta.url));
const READY_TIMEOUT_MS = 30_000;
const LOG_TIMEOUT_MS = 15_000;
const HTTP_TIMEOUT_MS = 5_000;
/** Lines shown when a step fails. */
const TAIL_LINES = 12;

export interface AgentFiles {
  readonly mesh: string;
  /** Shared by all agents: they are one mesh. */
  readonly ca: string;
  /** Of this agent alone. */
  readonly folder: string;
}

interface HttpAnswer {
  readonly status: number;
  readonly body: string;
}

export class Agent {
  readonly node: LabNode;
  readonly podsFile: string;
  readonly logFile: string;
  readonly #argv: readonly string[];
  #child: ChildProcess | undefined;

  constructor(node: LabNode, files: AgentFiles) {
    this.node = node;
    this.podsFile = path.join(files.folder, 'pods.yaml');
    this.logFile = path.join(files.folder, 'agent.log');
    const run = path.join(files.folder, 'run');
    mkdirSync(run, { recursive: true });
    const flags = {
      node: node.name,
      'mesh-file': files.mesh,
      pods: this.podsFile,
      'ca-dir': files.ca,
      'run-dir': run,
      'log-format': 'text',
    };
    const argv = Object.entries(flags).flatMap(([flag, value]) => [`--${flag}`, value]);
    this.#argv = [process.execPath, PROGRAM, 'agent', ...argv];
  }

  get pid(): number {
    return this.#child?.pid ?? 0;
  }

  /** Resolves when the agent says it is ready, with the milliseconds that took. */
  async start(): Promise<number> {
    const startedMs = performance.now();
    const log = openSync(this.logFile, 'a');
    this.#child = this.node.inside.spawn(this.#argv, { stdio: ['ignore', log, log], detached: true });
    closeSync(log);
    this.#child.on('error', () => {});
    this.#child.unref();
    await until(
      () => this.#isReady(),
      READY_TIMEOUT_MS,
      () => `the agent of ${this.node.name} is not ready`,
    );
    return performance.now() - startedMs;
  }

  async kill(): Promise<void> {
    if (this.#child === undefined) return;
    const exit = once(this.#child, 'exit');
    this.#child.kill('SIGKILL');
    await exit;
  }

  logLines(): readonly string[] {
    return readFileSync(this.logFile, 'utf8').split('\n').slice(0, -1);
  }

  logTail(): readonly string[] {
    return this.logLines().slice(-TAIL_LINES);
  }

  /** The first access-log line that holds all of `parts`. */
  findLogLine(...parts: readonly string[]): Promise<string> {
    return until(
      () => this.logLines().find((line) => parts.every((part) => line.includes(part))),
      LOG_TIMEOUT_MS,
      () => `the log of ${this.node.name} has no line with ${parts.join(' and ')}`,
    );
  }

  /** The metrics as text (Prometheus exposition). */
  async metrics(): Promise<string> {
    return (await this.#httpGet(PORTS.stats, '/metrics')).body;
  }

  async #isReady(): Promise<true | undefined> {
    const code = this.#child?.exitCode ?? this.#child?.signalCode ?? undefined;
    if (code !== undefined) throw new Error(`the agent of ${this.node.name} ended with ${code}`);
    try {
      return (await this.#httpGet(PORTS.readiness, '/healthz/ready')).status === 200 || undefined;
    } catch {
      return undefined;
    }
  }

  async #httpGet(port: number, url: string): Promise<HttpAnswer> {
    const socket = await this.node.inside.dial({ ip: '127.0.0.1', port });
    const { promise, resolve, reject } = Promise.withResolvers<HttpAnswer>();
    const request = http.get({ path: url, host: 'localhost', createConnection: () => socket.resume() });
    request.on('error', reject);
    request.on('response', (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('end', () => resolve({ status: response.statusCode ?? 0, body: Buffer.concat(chunks).toString() }));
      response.on('error', reject);
    });
    try {
      return await within(promise, HTTP_TIMEOUT_MS, `port ${port} of the agent gives no answer`);
    } finally {
      socket.destroy();
    }
  }
}
