/**
 * How willingly a thread leaves the CPU to others: how much it has of one that others want too (on Linux each thread has a nice
 * value of its own, sched(7)), and how soon it leaves it (the time slice it asks for, sched_setattr(2)).
 */
import { readdirSync, readFileSync } from 'node:fs';
import { getPriority, setPriority } from 'node:os';
import { libc } from './libc.ts';

const THIS_THREAD = 0;
const NICEST = 19;
const TASKS = '/proc/self/task';
/** Threads of V8 that compile and collect for all others of the process, as Node names them. */
const HELPER = 'node-V8Worker';

/** By process.arch: numbers of system calls for which C libraries have no function. */
const CALLS: Readonly<Record<string, { readonly set: number; readonly get: number }>> = {
  x64: { set: 314, get: 315 },
  arm64: { set: 274, get: 275 },
};
/** struct sched_attr: size, policy, flags, nice, priority, runtime, deadline, period (linux/sched/types.h). */
const ATTR_BYTES = 48;
const AT = { flags: 8, nice: 16, runtime: 24 } as const;
const SCHED_FLAG_KEEP_POLICY = 0x08n;
const NS_PER_MS = 1_000_000;

/** By so many steps, each of which is a tenth of its share of a CPU that others want too. There is no way back without privilege. */
export function yieldMore(steps: number, thread = THIS_THREAD): void {
  setPriority(thread, Math.min(NICEST, getPriority(thread) + steps));
}

/**
 * One thread with longer slices than another gets no less of the CPU, but leaves it as soon as the other wakes; with slices of one
 * length it keeps it until its own is over, which the kernel sees at the next tick. 0: as long as the kernel gives to all. Threads
 * that it starts later have the same. Older kernels than 6.12 ignore it, and so do we where a sandbox forbids the call.
 */
export function askForSlices(sliceMs: number, thread = THIS_THREAD): void {
  const call = CALLS[process.arch];
  if (call === undefined) return;
  const attributes = new Uint8Array(ATTR_BYTES);
  const view = new DataView(attributes.buffer);
  view.setUint32(0, ATTR_BYTES, true);
  view.setBigUint64(AT.flags, SCHED_FLAG_KEEP_POLICY, true);
  view.setInt32(AT.nice, getPriority(thread), true);
  view.setBigUint64(AT.runtime, BigInt(sliceMs * NS_PER_MS), true);
  libc.syscall(call.set, 'int', thread, 'void *', attributes, 'unsigned int', 0, 'unsigned int', 0);
}

/** `undefined` where the kernel does not say. */
export function sliceMsOf(thread: number): number | undefined {
  const call = CALLS[process.arch];
  const attributes = new Uint8Array(ATTR_BYTES);
  if (call === undefined) return undefined;
  if (libc.syscall(call.get, 'int', thread, 'void *', attributes, 'unsigned int', ATTR_BYTES, 'unsigned int', 0) !== 0)
    return undefined;
  return Number(new DataView(attributes.buffer).getBigUint64(AT.runtime, true)) / NS_PER_MS;
}

/** What `start` returns, and the threads of this process that it has started. */
export function threadsOf<Started>(start: () => Started): {
  readonly started: Started;
  readonly threads: readonly number[];
} {
  const former = new Set(readdirSync(TASKS));
  const started = start();
  const threads = readdirSync(TASKS).filter((task) => !former.has(task));
  return { started, threads: threads.map(Number) };
}

/** Those that V8 has now in a process; all of them, once it runs. */
export function helperThreads(tasks = TASKS): readonly number[] {
  return readdirSync(tasks)
    .filter((task) => readFileSync(`${tasks}/${task}/comm`, 'utf8').trim() === HELPER)
    .map(Number);
}
