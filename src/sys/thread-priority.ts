/** How willingly the calling thread leaves the CPU to others: on Linux each thread has a nice value of its own (sched(7)). */
import { getPriority, setPriority } from 'node:os';

const THIS_THREAD = 0;
const NICEST = 19;

/** By so many steps, each of which is a tenth of its share of a CPU that others want too. There is no way back without privilege. */
export function yieldMore(steps: number): void {
  setPriority(THIS_THREAD, Math.min(NICEST, getPriority(THIS_THREAD) + steps));
}
