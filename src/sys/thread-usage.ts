/** What the calling thread holds of the process: handles, timers, memory. */
import process from 'node:process';
import v8 from 'node:v8';
import { pendingTimers } from './system-clock.ts';

export interface ThreadUsage {
  /** Handles and requests of Node by type, those that keep the event loop alive; `Timeout` has the timers of our clock too. */
  readonly resources: Readonly<Record<string, number>>;
  /** Bytes in use. What is external lies outside the heap of V8; buffers are a part of it. */
  readonly memory: {
    /** Objects. */
    readonly heap: number;
    /** What V8 made of our sources: it compiles for hours, as functions become hot, and is bounded by the program. */
    readonly code: number;
    readonly external: number;
    readonly buffers: number;
  };
}

/** Spaces of V8's heap that hold instructions, bytecode and what belongs to them. */
const CODE_SPACE = /^(?:code|trusted)_/;

/** Looks at every handle: some 0.2 µs each. */
export function threadUsage(): ThreadUsage {
  const resources: Record<string, number> = { Timeout: pendingTimers() };
  for (const type of process.getActiveResourcesInfo()) resources[type] = (resources[type] ?? 0) + 1;
  const { heapUsed, external, arrayBuffers: buffers } = process.memoryUsage();
  let code = 0;
  for (const { space_name, space_used_size } of v8.getHeapSpaceStatistics()) {
    if (CODE_SPACE.test(space_name)) code += space_used_size;
  }
  return { resources, memory: { heap: heapUsed - code, code, external, buffers } };
}
