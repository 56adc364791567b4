/** Waiting for what nobody announces: looked at now and again, and never for ever. */
import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';

const EVERY_MS = 50;
/** Far over what anything takes on a busy machine. */
const WITHIN_MS = 90_000;

/** Resolves once `holds` does. Fails with `what` when it does not in time: a loop of its own would outlive its test. */
export async function until(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  const endMs = performance.now() + WITHIN_MS;
  while (!(await holds())) {
    assert(performance.now() < endMs, `not within ${WITHIN_MS / 1_000} s: ${what}`);
    await sleep(EVERY_MS);
  }
}
