/** V8's CPU and heap profiles as pprof profiles. Pure. */
import type { HeapProfiler, Profiler, Runtime } from 'node:inspector';
import type { PprofFrame, PprofProfile, PprofSample } from '../../wire/pprof.ts';

const NANOS_PER_MICRO = 1_000;
/** V8's own node for "nothing ran"; pprof counts CPU time only. */
const IDLE = '(idle)';

export interface Taken {
  readonly startMs: number;
  readonly durationMs: number;
  /** CPU: nanoseconds between samples. Heap: bytes between samples. */
  readonly period: number;
}

/** Thread → its profile: every stack begins with a frame that names the thread. */
export function cpuPprof(profiles: ReadonlyMap<string, Profiler.Profile>, taken: Taken): PprofProfile {
  const frames = new FrameTable();
  const samples = [...profiles].flatMap(([thread, profile]) => cpuSamples(profile, frames, frames.ofThread(thread)));
  return {
    sampleTypes: [
      { type: 'samples', unit: 'count' },
      { type: 'cpu', unit: 'nanoseconds' },
    ],
    frames: frames.all(),
    samples,
    periodType: { type: 'cpu', unit: 'nanoseconds' },
    ...taken,
  };
}

function cpuSamples(profile: Profiler.Profile, frames: FrameTable, root: number): PprofSample[] {
  const nodes = new Map(profile.nodes.map((node) => [node.id, node]));
  const parents = new Map(profile.nodes.flatMap((node) => (node.children ?? []).map((child) => [child, node.id])));
  const stackOf = (id: number): readonly number[] => {
    const stack: number[] = [];
    for (let at: number | undefined = id; at !== undefined; at = parents.get(at)) {
      const node = nodes.get(at);
      if (node !== undefined && parents.has(at)) stack.push(frames.indexOf(node.callFrame));
    }
    return [...stack, root];
  };
  const samples: PprofSample[] = [];
  for (const [id, { count, micros }] of timesByNode(profile)) {
    if (nodes.get(id)?.callFrame.functionName === IDLE) continue;
    samples.push({ stack: stackOf(id), values: [count, micros * NANOS_PER_MICRO] });
  }
  return samples;
}

/** As `cpuPprof`. */
export function heapPprof(profiles: ReadonlyMap<string, HeapProfiler.SamplingHeapProfile>, taken: Taken): PprofProfile {
  const frames = new FrameTable();
  const samples = [...profiles].flatMap(([thread, profile]) => heapSamples(profile, frames, frames.ofThread(thread)));
  return {
    sampleTypes: [{ type: 'inuse_space', unit: 'bytes' }],
    frames: frames.all(),
    samples,
    periodType: { type: 'space', unit: 'bytes' },
    ...taken,
  };
}

function heapSamples(profile: HeapProfiler.SamplingHeapProfile, frames: FrameTable, root: number): PprofSample[] {
  const samples: PprofSample[] = [];
  const visit = (node: HeapProfiler.SamplingHeapProfileNode, callers: readonly number[]): void => {
    const stack = node === profile.head ? callers : [frames.indexOf(node.callFrame), ...callers];
    if (node.selfSize > 0) samples.push({ stack, values: [Math.round(node.selfSize)] });
    for (const child of node.children) visit(child, stack);
  };
  visit(profile.head, [root]);
  return samples;
}

/** A delta belongs to the sample it precedes; the first may be negative when sampling began mid-tick. */
function timesByNode({
  samples = [],
  timeDeltas = [],
}: Profiler.Profile): Map<number, { count: number; micros: number }> {
  const times = new Map<number, { count: number; micros: number }>();
  for (const [index, id] of samples.entries()) {
    const time = times.get(id) ?? { count: 0, micros: 0 };
    time.count += 1;
    time.micros += Math.max(0, timeDeltas[index] ?? 0);
    times.set(id, time);
  }
  return times;
}

class FrameTable {
  readonly #indexes = new Map<string, number>();
  readonly #frames: PprofFrame[] = [];

  indexOf({ functionName, url, lineNumber }: Runtime.CallFrame): number {
    const key = `${functionName}\n${url}\n${lineNumber}`;
    const known = this.#indexes.get(key);
    if (known !== undefined) return known;
    this.#indexes.set(key, this.#frames.length);
    // V8 counts lines from 0, pprof from 1.
    return (
      this.#frames.push({ name: functionName === '' ? '(anonymous)' : functionName, file: url, line: lineNumber + 1 }) -
      1
    );
  }

  ofThread(name: string): number {
    return this.#frames.push({ name: `thread ${name}`, file: '', line: 0 }) - 1;
  }

  all(): readonly PprofFrame[] {
    return this.#frames;
  }
}
