/** What the calling thread holds of the process: handles, timers, memory. */
import process from 'node:process';
import { pendingTimers } from './system-clock.ts';

export interface ThreadUsage {
  /** Handles and requests of Node by type, those that keep the event loop alive; `Timeout` has the timers of our clock too. */
  readonly resources: Readonly<Record<string, number>>;
  /** Bytes in use. What is external lies outside the heap of V8; buffers are a part of it. */
  readonly memory: { readonly heap: number; readonly external: number; readonly buffers: number };
}

/** Looks at every handle: some 0.2 µs each. */
export function threadUsage(): ThreadUsage {
  const resources: Record<string, number> = { Timeout: pendingTimers() };
  for (const type of process.getActiveResourcesInfo()) resources[type] = (resources[type] ?? 0) + 1;
  const { heapUsed: heap, external, arrayBuffers: buffers } = process.memoryUsage();
  return { resources, memory: { heap, external, buffers } };
}
