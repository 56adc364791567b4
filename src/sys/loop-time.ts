/** What the event loop of this thread spends its time on: work or waiting. */

import { libc } from './libc.ts';

/** Injected where work is accounted for, so that tests own it. */
export interface LoopTime {
  /** Milliseconds from an arbitrary origin, to a fraction of a microsecond. */
  nowMs(): number;
  /** How many milliseconds of them the loop of this thread has waited for events. */
  idleMs(): number;
  /** Whoever waits for the CPU has it first; to be called between two pieces of work. Absent: this thread goes last to nobody. */
  giveWay?(): void;
}

const timing = performance.nodeTiming;

/** CPU time that this thread has used, ms. A system call. */
export function threadCpuMs(): number {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / 1_000;
}

/** The same of all threads together. */
export function processCpuMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1_000;
}

/** Both together take 0.1 µs. */
export const systemLoopTime: LoopTime = {
  nowMs: () => performance.now(),
  idleMs: () => timing.idleTime,
};

/** Of a thread that goes last. sched_yield(2): 1 µs, and nothing more when nobody waits. */
export const lastLoopTime: LoopTime = { ...systemLoopTime, giveWay: () => void libc.sched_yield() };
