/** Sends what happened in a worker to the main thread: soon, in one message at a time, and all of it on demand. */
import type { Clock } from '../../base/clock.ts';
import type { WorkerReport } from './protocol.ts';

/** Longest wait of news for company, ms. */
const BATCH_MS = 20;

export interface ReporterDeps {
  readonly clock: Clock;
  readonly take: () => WorkerReport;
  /** Resolves when the main thread has dealt with the report. */
  readonly send: (report: WorkerReport) => Promise<void>;
}

export class Reporter {
  readonly #deps: ReporterDeps;
  #hasNews = false;
  #isDue = false;
  #sending: Promise<void> | undefined;

  constructor(deps: ReporterDeps) {
    this.#deps = deps;
  }

  /** Something is to be told. Cheap: called for every connection and line. */
  news(): void {
    this.#hasNews = true;
    if (this.#isDue || this.#sending !== undefined) return;
    this.#isDue = true;
    this.#deps.clock.after(BATCH_MS, () => {
      this.#isDue = false;
      if (this.#hasNews) void this.#send();
    });
  }

  /** Resolves when everything up to now was dealt with. */
  async settle(): Promise<void> {
    await this.#sending;
    await this.#send();
  }

  /** Rejects never: a main thread that is gone takes this one with it. */
  #send(): Promise<void> {
    this.#sending ??= this.#deliver();
    return this.#sending;
  }

  async #deliver(): Promise<void> {
    this.#hasNews = false;
    try {
      await this.#deps.send(this.#deps.take());
    } catch {
      // The link is closed: the thread is about to end.
    } finally {
      this.#sending = undefined;
      if (this.#hasNews) this.news();
    }
  }
}
