/** Which thread of the agent goes first where they want the same CPU: workers, the main thread, and last greedy pods and V8's helpers. */
import type { Worker as Thread } from 'node:worker_threads';
import type { Lane } from '../model/lane.ts';
import { withOwnCompiler } from '../sys/own-compiler.ts';
import { askForSlices, helperThreads, threadsOf, yieldMore } from '../sys/thread-priority.ts';

/** As long as the kernel gives to all: 0.7 to 3 ms, by its version and the number of CPUs. */
const USUAL = 0;
/** Of the main thread: longer than usual, so that a worker that wakes need not wait for it. Its share is the same. */
const MAIN_SLICE_MS = 10;
/** Of who goes last: a 28th of what another thread gets, and after anybody who wakes. */
const LAST = { steps: 15, sliceMs: 20 } as const;

/** To be called before the process has threads of its own: the main thread, and the helpers of V8, which work for all. */
export function orderProcess({ hasWorkers }: { readonly hasWorkers: boolean }): void {
  if (hasWorkers) askForSlices(MAIN_SLICE_MS);
  for (const thread of helperThreads()) goLast(thread);
}

/** `start` starts a worker: it has what this thread has, and what it loads is a good deal of work. */
export function orderWorker(lane: Lane | undefined, start: () => Thread): Thread {
  const goesLast = lane === 'greedy';
  const { started, threads } = threadsOf(() => (goesLast ? withOwnCompiler(start) : start()));
  for (const thread of threads) {
    if (goesLast) goLast(thread);
    else askForSlices(USUAL, thread);
  }
  return started;
}

function goLast(thread: number): void {
  yieldMore(LAST.steps, thread);
  askForSlices(LAST.sliceMs, thread);
}
