/**
 * Faults for threads of another process, without a seam in the program: preload it with `NODE_OPTIONS=--import`, and name a
 * folder in `FAULTS`. A file `<fault>-<thread>` in it makes the thread do that, once; the file is removed first.
 */
import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { isMainThread, threadName } from 'node:worker_threads';

const POLL_MS = 20;
const BLOCK_MS = 5_000;

const FAULTS = {
  /** A defect outside any connection. */
  throw: () => {
    throw new Error('a defect on purpose');
  },
  /** The event loop stands still for good. */
  spin: () => {
    for (;;);
  },
  /** The event loop stands still for a while. */
  block: () => void Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, BLOCK_MS),
  /** More heap than there is. */
  exhaust: () => {
    const kept: string[][] = [];
    for (;;) kept.push(Array.from({ length: 10_000 }, (_, at) => `${kept.length}-${at}`));
  },
} as const;

export type Fault = keyof typeof FAULTS;

const folder = process.env['FAULTS'];
const name = isMainThread ? 'main' : threadName;

function look(): void {
  for (const [fault, happen] of Object.entries(FAULTS)) {
    const file = join(folder ?? '', `${fault}-${name}`);
    if (!existsSync(file)) continue;
    rmSync(file);
    happen();
  }
}

if (folder !== undefined) setInterval(look, POLL_MS).unref();
