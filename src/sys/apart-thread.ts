/** The thread of `apart.ts`. */
import { parentPort, workerData } from 'node:worker_threads';
import type { Apart } from './apart.ts';
import { yieldMore } from './thread-priority.ts';

/** Of its share of a CPU that others want too, a third is left. */
const STEPS = 5;

yieldMore(STEPS);
const { module, name, argument } = workerData as Apart;
const { [name]: work } = (await import(module)) as Readonly<Record<string, (argument: unknown) => unknown>>;
parentPort?.postMessage(work?.(argument));
