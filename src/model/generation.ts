/** A count of changes in memory that threads share: a change made in one thread is known in all others at once. */

/** Wraps after 2^32 changes; only equality means something. */
export class Generation {
  readonly #cell: Int32Array;

  /** `memory` is that of another thread's `Generation`, to see its changes. */
  constructor(memory: SharedArrayBuffer = new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT)) {
    this.#cell = new Int32Array(memory);
  }

  get memory(): SharedArrayBuffer {
    return this.#cell.buffer as SharedArrayBuffer;
  }

  get current(): number {
    return Atomics.load(this.#cell, 0);
  }

  advance(): void {
    Atomics.add(this.#cell, 0, 1);
  }
}
