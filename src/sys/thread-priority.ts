/** How willingly the calling thread leaves the CPU to others: on Linux each thread has a nice value of its own (sched(7)). */
import { readdirSync, readFileSync } from 'node:fs';
import { getPriority, setPriority } from 'node:os';

const THIS_THREAD = 0;
const NICEST = 19;
const TASKS = '/proc/self/task';
/** Threads of V8 that compile and collect for all others of the process, as Node names them. */
const HELPER = 'node-V8Worker';

/** By so many steps, each of which is a tenth of its share of a CPU that others want too. There is no way back without privilege. */
export function yieldMore(steps: number): void {
  setPriority(THIS_THREAD, Math.min(NICEST, getPriority(THIS_THREAD) + steps));
}

/** The same for the helpers of V8: else they keep threads that carry traffic from their CPU, each time for a whole time slice. */
export function lowerHelpers(steps: number): void {
  for (const task of readdirSync(TASKS)) {
    if (readFileSync(`${TASKS}/${task}/comm`, 'utf8').trim() !== HELPER) continue;
    const id = Number(task);
    setPriority(id, Math.min(NICEST, getPriority(id) + steps));
  }
}
