/** How long the event loop of this thread was not free, turn by turn. */
import { setImmediate as nextTurn } from 'node:timers/promises';

export interface Turns {
  /** Wall time, which a busy machine prolongs. */
  readonly longestMs: number;
  /** CPU time of this thread in the turn that used most of it. */
  readonly longestCpuMs: number;
}

/** Takes turns without a pause until `isDone`, and says which was the longest. */
export async function watchTurns(isDone: () => boolean): Promise<Turns> {
  let longestMs = 0;
  let longestCpuMs = 0;
  let startMs = performance.now();
  let startCpuMs = cpuMs();
  while (!isDone()) {
    await nextTurn();
    const endMs = performance.now();
    const endCpuMs = cpuMs();
    longestMs = Math.max(longestMs, endMs - startMs);
    longestCpuMs = Math.max(longestCpuMs, endCpuMs - startCpuMs);
    startMs = endMs;
    startCpuMs = endCpuMs;
  }
  return { longestMs, longestCpuMs };
}

function cpuMs(): number {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / 1_000;
}
