/** Long computations, each in a short-lived thread of its own: on this one they would hold up everybody. */
import { once } from 'node:events';
import { extname } from 'node:path';
import { Worker } from 'node:worker_threads';

const PROGRAM = new URL(`./apart-thread${extname(import.meta.url)}`, import.meta.url);

/** The parser of YAML takes 0.9 GiB for the longest text it is given; a thread that wants more ends, and only it. */
const MAX_HEAP_MIB = 1_536;

/** What the thread is told. */
export interface Apart {
  readonly module: string;
  readonly name: string;
  readonly argument: unknown;
}

/**
 * What `work` returns for `argument`, both copied (structured clone). The module at the URL `module` exports it under its own
 * name. Rejects when the thread comes to an end without an answer, for example for want of memory.
 */
export async function apart<A, R>(module: string, work: (argument: A) => R, argument: A): Promise<R> {
  const workerData: Apart = { module, name: work.name, argument };
  const resourceLimits = { maxOldGenerationSizeMb: MAX_HEAP_MIB };
  const thread = new Worker(PROGRAM, { name: work.name, workerData, resourceLimits });
  // `once` rejects with the error of a thread that ends by one.
  const answer = once(thread, 'message');
  const end = once(thread, 'exit').then(([code]) => {
    throw new Error(`the thread ended with code ${code} before it had an answer`);
  });
  const [result] = await Promise.race([answer, end]);
  return result as R;
}
