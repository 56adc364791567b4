/**
 * Gives memory back when a thread, or the process, has become quiet after work: V8 collects only while somebody allocates, and
 * the C library keeps what was freed, so an idle agent would hold for ever what its last burst needed.
 */
import { type Clock, every } from '../base/clock.ts';
import { collectGarbage, heapBytes, residentBytes, trimMemory } from '../sys/garbage.ts';
import { processCpuMs, threadCpuMs } from '../sys/loop-time.ts';

const LOOK_MS = 5_000;
/** Looks in a row at which the thread had used no more of a core than that. */
const QUIET_LOOKS = 2;
const QUIET_SHARE = 0.1;
/** Less work than that leaves nothing worth looking for. */
const LEAST_WORK_MS = 500;
const LEAST_GROWTH_BYTES = 8 * 1024 * 1024;
/** Collecting holds the thread for 0.3 s per 100 MiB that are alive; of more than this V8 may do it its own way. */
const MOST_HEAP_BYTES = 160 * 1024 * 1024;

export interface QuietThreadDeps {
  readonly clock: Clock;
  /** What it has used, ms: unlike the time its loop was busy, no neighbour on the machine adds to it. */
  readonly cpuMs: () => number;
  /** What it takes of the system. */
  readonly heldBytes: () => number;
  /** Of more than this nothing is given back: finding out would take too long. */
  readonly mostBytes: number;
  readonly giveBack: () => Promise<void>;
}

export class QuietThread implements Disposable {
  readonly #deps: QuietThreadDeps;
  readonly #timer: Disposable;
  #nowMs = 0;
  #cpuMs = 0;
  #workMs = 0;
  #quietLooks = 0;
  /** After the last collection. */
  #leastBytes: number;

  constructor(deps: QuietThreadDeps) {
    this.#deps = deps;
    this.#leastBytes = deps.heldBytes();
    this.#spent();
    this.#timer = every(deps.clock, LOOK_MS, () => this.#look());
  }

  [Symbol.dispose](): void {
    this.#timer[Symbol.dispose]();
  }

  #look(): void {
    const { workMs, share } = this.#spent();
    this.#workMs += workMs;
    this.#quietLooks = share <= QUIET_SHARE ? this.#quietLooks + 1 : 0;
    if (this.#quietLooks < QUIET_LOOKS || this.#workMs < LEAST_WORK_MS) return;
    const bytes = this.#deps.heldBytes();
    if (bytes > this.#deps.mostBytes || bytes < this.#leastBytes + LEAST_GROWTH_BYTES) return;
    this.#workMs = 0;
    void this.#giveBack();
  }

  async #giveBack(): Promise<void> {
    await this.#deps.giveBack();
    this.#leastBytes = this.#deps.heldBytes();
    // What the collection took is no work.
    this.#spent();
  }

  /** Since the last call. */
  #spent(): { readonly workMs: number; readonly share: number } {
    const { clock, cpuMs } = this.#deps;
    const passedMs = clock.monotonicMs() - this.#nowMs;
    const workMs = cpuMs() - this.#cpuMs;
    this.#nowMs += passedMs;
    this.#cpuMs += workMs;
    return { workMs, share: passedMs > 0 ? workMs / passedMs : 0 };
  }
}

/** Collects the garbage of this thread in its quiet times. */
export function watchThread(clock: Clock): QuietThread {
  const giveBack = collectGarbage;
  return new QuietThread({ clock, cpuMs: threadCpuMs, heldBytes: heapBytes, mostBytes: MOST_HEAP_BYTES, giveBack });
}

/**
 * For what grows beside the heaps of V8, TLS state and sockets above all: a thread whose heap is small again has nothing to
 * collect, and what it freed would stay. Looking for it takes a millisecond, whatever is held.
 */
export function watchProcess(clock: Clock): QuietThread {
  const giveBack = async (): Promise<void> => trimMemory();
  const mostBytes = Number.POSITIVE_INFINITY;
  return new QuietThread({ clock, cpuMs: processCpuMs, heldBytes: residentBytes, mostBytes, giveBack });
}
