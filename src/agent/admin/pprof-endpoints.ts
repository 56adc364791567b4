/** `/debug/pprof/…`: CPU and heap profiles of all threads or of one, on demand. */
import type { HeapProfiler, Profiler } from 'node:inspector';
import { promisify } from 'node:util';
import { gzip } from 'node:zlib';
import type { Clock } from '../../base/clock.ts';
import { encodePprof } from '../../wire/pprof.ts';
import type { Inspect } from '../thread-inspector.ts';
import type { HttpAnswer, HttpRequest } from './http-server.ts';
import { cpuPprof, heapPprof } from './pprof-convert.ts';

/** V8's default: one sample per so many allocated bytes, about 1 % of allocation cost. */
const HEAP_SAMPLING_BYTES = 512 * 1024;

export class PprofEndpoints implements AsyncDisposable {
  readonly #clock: Clock;
  readonly #threads: () => ReadonlyMap<string, Inspect>;
  #heapSinceMs: number | undefined;
  #isCpuBusy = false;

  /** `threads`: those that run now, by name. */
  constructor(clock: Clock, threads: () => ReadonlyMap<string, Inspect>) {
    this.#clock = clock;
    this.#threads = threads;
  }

  async cpu({ query, signal }: HttpRequest): Promise<HttpAnswer> {
    const seconds = wholeNumber(query.get('seconds') ?? '10', 300);
    if (seconds === undefined) return badRequest('invalid seconds value; expected 1-300\n');
    const frequency = wholeNumber(query.get('frequency') ?? '100', 1_000);
    if (frequency === undefined) return badRequest('invalid frequency value; expected 1-1000\n');
    const threads = this.#chosen(query);
    if (threads === undefined) return badRequest(`invalid thread value; expected one of ${this.#names()}\n`);
    if (this.#isCpuBusy) return failed('a CPU profile is already being taken\n');
    this.#isCpuBusy = true;
    try {
      return { status: 200, body: await this.#takeCpu(threads, { seconds, frequency }, signal) };
    } finally {
      this.#isCpuBusy = false;
    }
  }

  async heap({ query }: HttpRequest): Promise<HttpAnswer> {
    const threads = this.#chosen(query);
    if (threads === undefined) return badRequest(`invalid thread value; expected one of ${this.#names()}\n`);
    if (this.#heapSinceMs === undefined) {
      return failed('heap profiling is not active; switch it on with /debug/pprof/heap/profiling?activate=true\n');
    }
    const profiles = await eachThread(threads, async (inspect) => {
      const taken = await inspect({ purpose: 'heap', method: 'HeapProfiler.getSamplingProfile' });
      return (taken as HeapProfiler.GetSamplingProfileReturnType).profile;
    });
    const durationMs = this.#clock.wallMs() - this.#heapSinceMs;
    const taken = { startMs: this.#heapSinceMs, durationMs, period: HEAP_SAMPLING_BYTES };
    return { status: 200, body: await promisify(gzip)(encodePprof(heapPprof(profiles, taken))) };
  }

  async heapProfiling({ query }: HttpRequest): Promise<HttpAnswer> {
    const wanted = query.get('activate');
    if (wanted !== null && wanted !== 'true' && wanted !== 'false') {
      return badRequest('invalid activate value; expected true or false\n');
    }
    if (wanted !== null) await this.#setHeap(wanted === 'true');
    return text(200, `heap profiling active: ${this.#heapSinceMs !== undefined}\n`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#setHeap(false);
  }

  /** One by name, or all; `undefined`: there is none with this name. */
  #chosen(query: URLSearchParams): ReadonlyMap<string, Inspect> | undefined {
    const name = query.get('thread');
    const threads = this.#threads();
    if (name === null) return threads;
    const inspect = threads.get(name);
    return inspect && new Map([[name, inspect]]);
  }

  #names(): string {
    return [...this.#threads().keys()].join(', ');
  }

  /** Workers that start later are not sampled until it is switched on again. */
  async #setHeap(isActive: boolean): Promise<void> {
    if (isActive === (this.#heapSinceMs !== undefined)) return;
    this.#heapSinceMs = isActive ? this.#clock.wallMs() : undefined;
    await eachThread(this.#threads(), async (inspect) => {
      if (!isActive) return await inspect({ purpose: 'heap', method: undefined });
      const params = { samplingInterval: HEAP_SAMPLING_BYTES };
      return await inspect({ purpose: 'heap', method: 'HeapProfiler.startSampling', params });
    });
  }

  async #takeCpu(
    threads: ReadonlyMap<string, Inspect>,
    { seconds, frequency }: { readonly seconds: number; readonly frequency: number },
    signal: AbortSignal,
  ): Promise<Uint8Array> {
    const startMs = this.#clock.wallMs();
    const params = { interval: Math.round(1_000_000 / frequency) };
    try {
      await eachThread(threads, async (inspect) => {
        await inspect({ purpose: 'cpu', method: 'Profiler.enable' });
        await inspect({ purpose: 'cpu', method: 'Profiler.setSamplingInterval', params });
        return await inspect({ purpose: 'cpu', method: 'Profiler.start' });
      });
      await this.#wait(seconds * 1_000, signal);
      const profiles = await eachThread(threads, async (inspect) => {
        const stopped = await inspect({ purpose: 'cpu', method: 'Profiler.stop' });
        return (stopped as Profiler.StopReturnType).profile;
      });
      const taken = { startMs, durationMs: this.#clock.wallMs() - startMs, period: Math.round(1e9 / frequency) };
      return encodePprof(cpuPprof(profiles, taken));
    } finally {
      await eachThread(threads, (inspect) => inspect({ purpose: 'cpu', method: undefined }));
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

/** By name, what `ask` resolves with; a thread that ended, or was never started sampling, is left out. */
async function eachThread<Answer>(
  threads: ReadonlyMap<string, Inspect>,
  ask: (inspect: Inspect) => Promise<Answer>,
): Promise<ReadonlyMap<string, Answer>> {
  const answers = await Promise.allSettled(
    [...threads].map(async ([name, inspect]) => [name, await ask(inspect)] as const),
  );
  return new Map(answers.flatMap((answer) => (answer.status === 'fulfilled' ? [answer.value] : [])));
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
