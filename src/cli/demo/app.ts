/** One application process inside a pod, as the demo drives it. */
import type { ChildProcess } from 'node:child_process';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { LabPod } from '../lab/lab.ts';
import type { AppAnswer, AppEvent, AppOrder } from './pod-app.ts';
import { within } from './waiting.ts';

/** Runs from sources and from `dist/` alike. */
const PROGRAM = fileURLToPath(new URL(`./pod-app${path.extname(import.meta.url)}`, import.meta.url));
const START_TIMEOUT_MS = 20_000;
/** Over the application's own timeout, so that its word comes first. */
const ANSWER_TIMEOUT_MS = 8_000;

export type Outcome =
  | { readonly isAnswered: true; readonly answer: AppAnswer }
  | { readonly isAnswered: false; readonly error: string };

/** A connection that stays open until somebody cuts it. */
export interface HeldConnection {
  /** Resolves with the error the application saw. */
  readonly cut: Promise<string>;
}

export class App {
  readonly pod: LabPod;
  readonly port: number;
  readonly #child: ChildProcess;
  readonly #startedAt: string;
  readonly #listeners = new Map<number, (event: AppEvent) => void>();
  #lastId = 0;

  static async start(pod: LabPod, port: number, isStaying: boolean): Promise<App> {
    const argv = [process.execPath, PROGRAM, pod.name, String(port), ...(isStaying ? ['--stay'] : [])];
    // A session of its own: Ctrl-C is for the demo, which then removes everything in order.
    const child = pod.inside.spawn(argv, { stdio: ['pipe', 'pipe', 'inherit'], detached: true });
    const ready = Promise.withResolvers<App>();
    child.once('error', ready.reject);
    child.once('exit', (code) => ready.reject(new Error(`the application of ${pod.name} ended with ${code}`)));
    const app = new App(pod, port, child, () => ready.resolve(app));
    return within(ready.promise, START_TIMEOUT_MS, `the application of ${pod.name} did not start`);
  }

  private constructor(pod: LabPod, port: number, child: ChildProcess, onReady: () => void) {
    this.pod = pod;
    this.port = port;
    this.#child = child;
    this.#startedAt = startTime(child.pid);
    child.unref();
    if (child.stdout === null) throw new Error('the application has no stdout');
    createInterface(child.stdout).on('line', (line) => {
      const event = JSON.parse(line) as AppEvent;
      if (event.event === 'ready') onReady();
      else this.#listeners.get(event.id)?.(event);
    });
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  /** Still the process that was started: same PID, same start time. */
  get isSameProcess(): boolean {
    return this.#startedAt !== '' && startTime(this.pid) === this.#startedAt;
  }

  /** Lets an application that stays go on alone: nothing of it keeps this process alive. */
  letGo(): void {
    this.#child.stdin?.destroy();
    this.#child.stdout?.destroy();
  }

  /** Asks over a connection of its own. */
  get(url: string): Promise<Outcome> {
    const { promise, resolve } = Promise.withResolvers<Outcome>();
    this.#send('get', url, (event) => {
      if (event.event === 'answer') resolve({ isAnswered: true, answer: JSON.parse(event.body) as AppAnswer });
      else if (event.event === 'failed') resolve({ isAnswered: false, error: event.error });
    });
    return within(promise, ANSWER_TIMEOUT_MS, `${this.pod.name} has neither answer nor error from ${url}`);
  }

  /** Resolves once the first bytes have come. */
  hold(url: string): Promise<HeldConnection> {
    const held = Promise.withResolvers<HeldConnection>();
    const cut = Promise.withResolvers<string>();
    this.#send('hold', url, (event) => {
      if (event.event === 'held') held.resolve({ cut: cut.promise });
      else if (event.event === 'cut') cut.resolve(event.error);
      else if (event.event === 'failed') held.reject(new Error(`${this.pod.name} cannot hold ${url}: ${event.error}`));
    });
    return within(held.promise, ANSWER_TIMEOUT_MS, `${this.pod.name} gets nothing from ${url}`);
  }

  #send(order: AppOrder['order'], url: string, listener: (event: AppEvent) => void): void {
    this.#lastId += 1;
    this.#listeners.set(this.#lastId, listener);
    const message: AppOrder = { id: this.#lastId, order, url };
    this.#child.stdin?.write(`${JSON.stringify(message)}\n`);
  }
}

function startTime(pid: number | undefined): string {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? '';
  } catch {
    return '';
  }
}
