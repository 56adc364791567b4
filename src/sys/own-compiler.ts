/** Threads that compile their hot code themselves, with the priority they have, and leave V8's helpers to others. */
import { setFlagsFromString } from 'node:v8';
import type { Worker as Thread } from 'node:worker_threads';

/** V8 asks it once, when it makes the heap of a thread, which it does before that is `online`. */
const FLAG = 'concurrent-recompilation';

/** Threads that have been started and are not online. */
let beginning = 0;

/** What else begins until the thread of `start` is online compiles by itself, too: it is slower at first, and no worse. */
export function withOwnCompiler(start: () => Thread): Thread {
  const begun = begin();
  try {
    return start().once('online', begun).once('exit', begun);
  } catch (error) {
    begun();
    throw error;
  }
}

/** Returns what ends it; calls after the first do nothing. */
function begin(): () => void {
  let isBeginning = true;
  beginning += 1;
  setFlagsFromString(`--no-${FLAG}`);
  return () => {
    if (!isBeginning) return;
    isBeginning = false;
    beginning -= 1;
    if (beginning === 0) setFlagsFromString(`--${FLAG}`);
  };
}
