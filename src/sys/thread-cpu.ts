/** CPU time of another thread of this process, which need not do anything for it (clock_getcpuclockid(3)). */
import { libc } from './libc.ts';

/** struct timespec: seconds and nanoseconds, 64 bits each. */
const TIMESPEC_BYTES = 16;
/** What the kernel makes of a thread id: CPUCLOCK_PERTHREAD_MASK | CPUCLOCK_SCHED (linux/posix-timers.h). */
const THREAD_CLOCK = 0b110;
const ID_SHIFT = 3;

/** Names the calling thread for `cpuMsOf`, until it ends. */
export function threadId(): number {
  return libc.gettid();
}

/** What that thread has used until now, ms; `undefined` when it has ended. */
export function cpuMsOf(threadId: number): number | undefined {
  const time = new Uint8Array(TIMESPEC_BYTES);
  if (libc.clock_gettime((~threadId << ID_SHIFT) | THREAD_CLOCK, time) !== 0) return undefined;
  const view = new DataView(time.buffer);
  return Number(view.getBigInt64(0, true)) * 1_000 + Number(view.getBigInt64(8, true)) / 1_000_000;
}
