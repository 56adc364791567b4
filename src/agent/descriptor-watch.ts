/**
 * Says when this process has no file descriptor left. libuv then accepts whoever connects by one that it keeps in reserve, and
 * closes the connection at once: a listener hears of nothing, and no line tells of the client.
 */
import { ChangeLog } from '../base/change-log.ts';
import { type Clock, every } from '../base/clock.ts';
import type { MeshError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';

/** What is over sooner may go unseen. */
const LOOK_MS = 1_000;
/** From one line to the next. */
const LOG_PERIOD_MS = 10_000;

export interface DescriptorWatchDeps {
  readonly clock: Clock;
  readonly log: Logger;
  /** Why there is none; `undefined`: there is one. */
  readonly shortage: () => MeshError | undefined;
}

export function watchDescriptors({ clock, log, shortage }: DescriptorWatchDeps): Disposable {
  const told = new ChangeLog(clock, LOG_PERIOD_MS);
  return every(clock, LOOK_MS, () => {
    const error = shortage();
    if (error === undefined) told.reset();
    else told.note(error.message, (leftOut) => sayShort(log, error, leftOut));
  });
}

function sayShort(log: Logger, { code: reason, message: error }: MeshError, leftOut: number): void {
  log.error?.('no file descriptor is left: new connections are closed, without a line each', {
    reason,
    error,
    leftOut,
  });
}
