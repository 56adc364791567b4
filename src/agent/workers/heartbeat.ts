/** How a worker shows that its event loop turns, and how the main thread tells one that hangs from one that has no CPU. */
import { cpuMsOf, threadId } from '../../sys/thread-cpu.ts';

/** Of the shared numbers: how often the loop has turned, and what the thread is called. */
const COUNT = 0;
const THREAD = 1;

/** Who stands still and has used so much of that time is in an endless loop. More than a collection of a large heap takes. */
const SPINNING_PART = 1 / 4;
/** Who waits for something for so many times as long does not come back; a thread without CPU does, far sooner. */
const BLOCKED_TIMES = 6;

/** The worker's end, in its thread. */
export class Heartbeat {
  readonly #shared: Int32Array;

  constructor(memory: SharedArrayBuffer) {
    this.#shared = new Int32Array(memory);
    Atomics.store(this.#shared, THREAD, threadId());
  }

  /** How often before. */
  beat(): number {
    return Atomics.add(this.#shared, COUNT, 1);
  }
}

export class HeartbeatWatch {
  readonly memory = new SharedArrayBuffer(2 * Int32Array.BYTES_PER_ELEMENT);
  readonly #shared = new Int32Array(this.memory);
  readonly #cpuMs: (threadId: number) => number | undefined;
  /** Undefined at the first look: what it took to start does not count. */
  #seen: number | undefined;
  #stillMs = 0;
  #cpuMsBefore = 0;

  constructor(cpuMs = cpuMsOf) {
    this.#cpuMs = cpuMs;
  }

  /**
   * To be asked every `periodMs`. True: the loop has not turned for `hangMs`, and is not to. A main thread that had no CPU itself
   * asks less often, and so judges later.
   */
  isHung(periodMs: number, hangMs: number): boolean {
    const count = Atomics.load(this.#shared, COUNT);
    const cpuMs = this.#cpuMs(Atomics.load(this.#shared, THREAD)) ?? 0;
    if (count !== this.#seen) {
      this.#seen = count;
      this.#stillMs = 0;
      this.#cpuMsBefore = cpuMs;
      return false;
    }
    this.#stillMs += periodMs;
    const isSpinning = this.#stillMs >= hangMs && cpuMs - this.#cpuMsBefore >= hangMs * SPINNING_PART;
    return isSpinning || this.#stillMs >= hangMs * BLOCKED_TIMES;
  }
}
