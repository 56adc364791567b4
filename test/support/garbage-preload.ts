/** Loaded into each thread of an agent by `NODE_OPTIONS=--import=…`: collects all garbage now and then, so that what is left is held. */
import process from 'node:process';
import { collectGarbage } from '../../src/sys/garbage.ts';

/** Often enough for a soak of a few minutes; a collection holds a thread for some 0.2 s. */
export const COLLECT_MS = 20_000;

if (process.env['NODE_OPTIONS']?.includes(import.meta.url) === true) {
  setInterval(() => void collectGarbage(), COLLECT_MS).unref();
}
