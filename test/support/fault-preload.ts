/**
 * Faults for threads of another process, without a seam in the program: preload it with `NODE_OPTIONS=--import`, and name a
 * folder in `FAULTS`. A file `<fault>-<thread>` in it makes the thread do that, once: the file is removed, and there is one
 * `<fault>-<thread>.begun` instead.
 */
import { existsSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { isMainThread, threadName } from 'node:worker_threads';
import koffi from 'koffi';
import { tryGetBytes } from '../../src/sys/sockopt.ts';

const POLL_MS = 20;
const SO_TYPE = { name: 'SO_TYPE', level: 1, option: 3 } as const;
const SOCK_SEQPACKET = 5;
const SHUT_RDWR = 2;

const FAULTS = {
  /** A defect outside any connection. */
  throw: () => {
    throw new Error('a defect on purpose');
  },
  /** The event loop stands still for good. */
  spin: () => {
    for (;;);
  },
  /** The event loop stands still until `<fault>-<thread>.begun` is removed. */
  block: (begun: string) => {
    while (existsSync(begun)) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, POLL_MS);
  },
  /** What it says to the agent before it, and hears from it, is lost from now on. */
  mute: () => {
    const shutdown = koffi.load(null).func('int shutdown(int fd, int how)') as (fd: number, how: number) => number;
    const fds = readdirSync('/proc/self/fd').map(Number);
    const links = fds.filter((fd) => tryGetBytes(fd, SO_TYPE, 4)?.[0] === SOCK_SEQPACKET);
    for (const fd of links) shutdown(fd, SHUT_RDWR);
  },
  /** More heap than there is. */
  exhaust: () => {
    const kept: number[][] = [];
    for (;;) kept.push(Array.from({ length: 100_000 }, (_, at) => at + 0.5));
  },
} as const;

export type Fault = keyof typeof FAULTS;

const folder = process.env['FAULTS'];
const name = isMainThread ? 'main' : threadName;

function look(): void {
  for (const [fault, happen] of Object.entries(FAULTS)) {
    const file = join(folder ?? '', `${fault}-${name}`);
    if (!existsSync(file)) continue;
    const begun = `${file}.begun`;
    writeFileSync(begun, '');
    rmSync(file);
    happen(begun);
  }
}

if (folder !== undefined) setInterval(look, POLL_MS).unref();
