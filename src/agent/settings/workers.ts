/** How many threads carry traffic, and what one of them may use. */

import type { Machine } from './input.ts';
import { LANE_HEAP_PART } from './lanes.ts';
import type { SettingsReader } from './reader.ts';

export interface WorkerSettings {
  /** Data-plane threads; 0 = the main thread carries traffic too. */
  readonly workers: number;
  /** A worker whose event loop stands still for this long, and not for want of CPU, is replaced. */
  readonly workerHangMs: number;
  /** JavaScript heap of one worker, MiB; a worker that needs more is replaced. */
  readonly workerHeapMib: number;
}

const SMALLEST: Machine = { cores: 1, memoryMib: 1_024 };
/** More threads than any node has cores. */
const MAX_WORKERS = 1_024;
const AUTO_SHARE = 0.25;
const FLAG = { flag: 'workers' } as const;
const THREADS = { env: 'ZTUNNEL_WORKER_THREADS' } as const;
const CONCURRENCY = { config: 'concurrency' } as const;
/** A worker starts with some 15 MiB of heap. */
const MIN_HEAP_MIB = 32;
/** Four times what 100,000 connections of one worker need. */
const MAX_AUTO_HEAP_MIB = 4_096;
/** Share of memory that the heaps of all workers may fill, of both lanes; buffers, the main thread and the kernel have the rest. */
const HEAP_SHARE = 0.75;

export function workerSettings(read: SettingsReader): WorkerSettings {
  const workers = workersOf(read);
  const { memoryMib } = read.start.machine ?? SMALLEST;
  const heapMib = (HEAP_SHARE * memoryMib) / (Math.max(workers, 1) * (1 + LANE_HEAP_PART));
  return {
    workers,
    workerHangMs: read.durationMs({ env: 'CULVERT_WORKER_HANG_TIMEOUT' }, 10_000, { minMs: 1_000 }),
    workerHeapMib: read.integer(
      { env: 'CULVERT_WORKER_HEAP_MIB' },
      { fallback: clamp(Math.trunc(heapMib), MIN_HEAP_MIB, MAX_AUTO_HEAP_MIB), min: MIN_HEAP_MIB, max: 65_536 },
    ),
  };
}

function workersOf(read: SettingsReader): number {
  const cpus = cpusOf(read);
  const threads = read.isSet(FLAG) ? FLAG : THREADS;
  const text = read.text(threads, 'auto').trim();
  // For the flag 0 means "no threads", for the variable of ztunnel "all CPUs".
  const zero = threads === FLAG ? 0 : cpus.count;
  const count = text === 'auto' || text === '' ? undefined : countOf(text, cpus.count, zero);
  if (count === 'malformed') {
    read.refuse(threads, `must be auto, a number of threads up to ${MAX_WORKERS} or a share of the CPUs such as 50%`);
    return 1;
  }
  const wanted = count ?? concurrency(read, cpus.count) ?? cpus.automatic;
  if (wanted < 2 || read.bool({ env: 'INPOD_PORT_REUSE' }, true)) return wanted;
  if (count !== undefined) read.refuse(threads, `${wanted} workers cannot share ports while INPOD_PORT_REUSE is false`);
  return 1;
}

/** ProxyConfig; 0 = all CPUs. */
function concurrency(read: SettingsReader, cpuCount: number): number | undefined {
  if (!read.isSet(CONCURRENCY)) return undefined;
  const count = read.integer(CONCURRENCY, { fallback: 1, min: 0, max: MAX_WORKERS });
  return count === 0 ? cpuCount : count;
}

function countOf(text: string, cpuCount: number, zero: number): number | 'malformed' {
  const [, digits, percent] = /^(\d+)(%?)$/.exec(text) ?? [];
  const number = Number(digits);
  if (digits === undefined || number > MAX_WORKERS) return 'malformed';
  if (percent === '') return number === 0 ? zero : number;
  return number < 1 || number > 100 ? 'malformed' : Math.max(1, Math.ceil((number / 100) * cpuCount));
}

/** `automatic`: a quarter of the CPUs, more when the pod asked for more, never more than its cgroup gives. */
function cpusOf(read: SettingsReader): { readonly count: number; readonly automatic: number } {
  const { machine = SMALLEST, defaults } = read.start;
  const limit = wholeCpus(read, { env: 'ZTUNNEL_RESOURCE_CPU_LIMIT' });
  const request = wholeCpus(read, { env: 'ZTUNNEL_RESOURCE_CPU_REQUEST' }) ?? 0;
  const nodeCpus = read.integer({ env: 'ZTUNNEL_CPU_LIMIT' }, { fallback: machine.cores, min: 1, max: 65_536 });
  const count = limit ?? nodeCpus;
  // ztunnel starts two at least.
  const least = defaults === 'ztunnel' ? 2 : 1;
  const wanted =
    limit === undefined ? Math.max(Math.ceil(AUTO_SHARE * count), request, least) : Math.max(limit, request);
  return { count, automatic: clamp(wanted, 1, Math.max(1, Math.floor(machine.cpuLimit ?? MAX_WORKERS))) };
}

/** A Kubernetes quantity of CPU (`2`, `1.5`, `500m`), rounded up. */
function wholeCpus(read: SettingsReader, source: { readonly env: string }): number | undefined {
  const text = read.optional(source);
  if (text === undefined) return undefined;
  const [, digits, unit] = /^(\d+(?:\.\d+)?)(m?)$/.exec(text) ?? [];
  const cpus = Math.ceil(Number(digits) / (unit === 'm' ? 1_000 : 1));
  if (cpus >= 1) return cpus;
  read.refuse(source, `must be a positive quantity of CPU such as 2, 1.5 or 500m, got "${text}"`);
  return undefined;
}

function clamp(value: number, least: number, most: number): number {
  return Math.min(Math.max(value, least), most);
}
