/** `/debug/pprof/…`: CPU and heap profiles of this thread, on demand (facts/operations.md §5.2). */
import { Session } from 'node:inspector/promises';
import { promisify } from 'node:util';
import { gzip } from 'node:zlib';
import type { Clock } from '../base/clock.ts';
import { encodePprof } from '../wire/pprof.ts';
import type { HttpAnswer, HttpRequest } from './http-server.ts';
import { cpuPprof, heapPprof } from './pprof-convert.ts';

/** V8's default: one sample per so many allocated bytes, about 1 % of allocation cost. */
const HEAP_SAMPLING_BYTES = 512 * 1024;

export class PprofEndpoints implements Disposable {
  readonly #clock: Clock;
  readonly #heap = new Session();
  #heapSinceMs: number | undefined;
  #isCpuBusy = false;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  async cpu({ query, signal }: HttpRequest): Promise<HttpAnswer> {
    const seconds = wholeNumber(query.get('seconds') ?? '10', 300);
    if (seconds === undefined) return badRequest('invalid seconds value; expected 1-300\n');
    const frequency = wholeNumber(query.get('frequency') ?? '100', 1_000);
    if (frequency === undefined) return badRequest('invalid frequency value; expected 1-1000\n');
    if (this.#isCpuBusy) return failed('a CPU profile is already being taken\n');
    this.#isCpuBusy = true;
    try {
      return { status: 200, body: await this.#takeCpu(seconds, frequency, signal) };
    } finally {
      this.#isCpuBusy = false;
    }
  }

  async heap(): Promise<HttpAnswer> {
    if (this.#heapSinceMs === undefined) {
      return failed('heap profiling is not active; switch it on with /debug/pprof/heap/profiling?activate=true\n');
    }
    const { profile } = await this.#heap.post('HeapProfiler.getSamplingProfile');
    const durationMs = this.#clock.wallMs() - this.#heapSinceMs;
    const taken = { startMs: this.#heapSinceMs, durationMs, period: HEAP_SAMPLING_BYTES };
    return { status: 200, body: await promisify(gzip)(encodePprof(heapPprof(profile, taken))) };
  }

  async heapProfiling({ query }: HttpRequest): Promise<HttpAnswer> {
    const wanted = query.get('activate');
    if (wanted !== null && wanted !== 'true' && wanted !== 'false') {
      return badRequest('invalid activate value; expected true or false\n');
    }
    if (wanted !== null) await this.#setHeap(wanted === 'true');
    return text(200, `heap profiling active: ${this.#heapSinceMs !== undefined}\n`);
  }

  [Symbol.dispose](): void {
    this.#heap.disconnect();
  }

  async #setHeap(isActive: boolean): Promise<void> {
    if (isActive === (this.#heapSinceMs !== undefined)) return;
    if (isActive) {
      this.#heapSinceMs = this.#clock.wallMs();
      this.#heap.connect();
      await this.#heap.post('HeapProfiler.startSampling', { samplingInterval: HEAP_SAMPLING_BYTES });
    } else {
      this.#heapSinceMs = undefined;
      await this.#heap.post('HeapProfiler.stopSampling');
      this.#heap.disconnect();
    }
  }

  async #takeCpu(seconds: number, frequency: number, signal: AbortSignal): Promise<Uint8Array> {
    const session = new Session();
    session.connect();
    try {
      const startMs = this.#clock.wallMs();
      await session.post('Profiler.enable');
      await session.post('Profiler.setSamplingInterval', { interval: Math.round(1_000_000 / frequency) });
      await session.post('Profiler.start');
      await this.#wait(seconds * 1_000, signal);
      const { profile } = await session.post('Profiler.stop');
      const taken = { startMs, durationMs: this.#clock.wallMs() - startMs, period: Math.round(1e9 / frequency) };
      return encodePprof(cpuPprof(profile, taken));
    } finally {
      session.disconnect();
    }
  }

  /** Ends early when the client goes away. */
  async #wait(ms: number, signal: AbortSignal): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    signal.addEventListener('abort', () => resolve(), { once: true });
    using _timer = this.#clock.after(ms, resolve);
    await promise;
  }
}

function wholeNumber(value: string, max: number): number | undefined {
  const number = /^\d{1,5}$/.test(value) ? Number(value) : 0;
  return number >= 1 && number <= max ? number : undefined;
}

function badRequest(body: string): HttpAnswer {
  return text(400, body);
}

function failed(body: string): HttpAnswer {
  return text(500, body);
}

function text(status: number, body: string): HttpAnswer {
  return { status, type: 'text/plain', body };
}
