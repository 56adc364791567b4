/** What a listener could not accept (for want of descriptors or memory): the loop tries again each turn, and must not log each time. */
import { ChangeLog } from '../base/change-log.ts';
import type { Clock } from '../base/clock.ts';
import type { Logger } from '../base/log.ts';

/** From one line to the next. */
const LOG_PERIOD_MS = 10_000;

export interface AcceptFailuresDeps {
  readonly clock: Clock;
  readonly log: Logger;
}

/** Of the listeners of one pod. */
export class AcceptFailures {
  readonly #log: Logger;
  readonly #changes: ChangeLog;

  constructor({ clock, log }: AcceptFailuresDeps) {
    this.#log = log;
    this.#changes = new ChangeLog(clock, LOG_PERIOD_MS);
  }

  note(port: number, { message: error }: Error): void {
    this.#changes.note(`${port} ${error}`, (leftOut) => this.#log.error?.('listener failed', { port, error, leftOut }));
  }

  /** Somebody was accepted: the next failure is a new one. */
  reset(): void {
    this.#changes.reset();
  }
}
