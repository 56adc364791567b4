/** Waiting with an end: for a promise, or for a condition that nothing announces. */
import { setTimeout as sleep } from 'node:timers/promises';

const POLL_MS = 20;

/** Settles as `work`, or rejects with `message` after `limitMs`. */
export async function within<T>(work: Promise<T>, limitMs: number, message: string): Promise<T> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new Error(`${message} (waited ${limitMs / 1000} s)`)), limitMs);
  try {
    return await Promise.race([work, late.promise]);
  } finally {
    clearTimeout(timer);
  }
}

/** Asks again and again until `probe` gives something; rejects with `message` after `limitMs`. */
export async function until<T>(
  probe: () => T | undefined | Promise<T | undefined>,
  limitMs: number,
  message: () => string,
): Promise<T> {
  const endMs = performance.now() + limitMs;
  for (;;) {
    const found = await probe();
    if (found !== undefined) return found;
    if (performance.now() > endMs) throw new Error(`${message()} (waited ${limitMs / 1000} s)`);
    await sleep(POLL_MS);
  }
}
