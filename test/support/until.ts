/** Waiting for what nobody announces: looked at soon, then now and again, and never for ever. */
import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';

/** From one look to the next, at most. */
const EVERY_MS = 50;
/** Far over what anything takes on a busy machine. */
const WITHIN_MS = 90_000;

/** Resolves once `holds` does. Fails with `what` when it does not in time: a loop of its own would outlive its test. */
export async function until(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  const endMs = performance.now() + WITHIN_MS;
  for (let waitMs = 1; !(await holds()); waitMs = Math.min(2 * waitMs, EVERY_MS)) {
    assert(performance.now() < endMs, `not within ${WITHIN_MS / 1_000} s: ${what}`);
    await sleep(waitMs);
  }
}
