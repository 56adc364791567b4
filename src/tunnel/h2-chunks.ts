/** A FIFO of byte chunks. Small ones are gathered, so that its memory follows its bytes and not the number of chunks. */

/** Below this a chunk is copied: a view costs about 100 bytes and may keep a much larger buffer alive. */
const SMALL_CHUNK_BYTES = 1024;
const GATHER_BYTES = 4096;

export class ChunkQueue {
  #chunks: Uint8Array[] = [];
  #first = 0;
  #bytes = 0;
  /** Last chunk when it is a buffer of ours with room: `#gatherFilled` of it is queued. */
  #gather: Uint8Array | undefined;
  #gatherFilled = 0;

  get bytes(): number {
    return this.#bytes;
  }

  /** Keeps `chunk` itself, or a copy when it is only lent. */
  push(chunk: Uint8Array, isLent: boolean): void {
    this.#bytes += chunk.length;
    if (chunk.length >= SMALL_CHUNK_BYTES) {
      this.#seal();
      this.#chunks.push(isLent ? new Uint8Array(chunk) : chunk);
      return;
    }
    if (this.#gather !== undefined && this.#gatherFilled + chunk.length > GATHER_BYTES) this.#seal();
    this.#gather ??= new Uint8Array(GATHER_BYTES);
    this.#gather.set(chunk, this.#gatherFilled);
    this.#gatherFilled += chunk.length;
  }

  /** The next chunk, removed; `undefined` when empty. */
  shift(): Uint8Array | undefined {
    const chunk = this.#front();
    if (chunk === undefined) return undefined;
    this.#dropFront();
    this.#bytes -= chunk.length;
    return chunk;
  }

  /** Moves the next `count` octets (at most `bytes`) to `out[at…]`. */
  copyTo(out: Uint8Array, at: number, count: number): void {
    let to = at;
    for (let left = count; left > 0; ) {
      const chunk = this.#front();
      if (chunk === undefined) return;
      const taken = Math.min(left, chunk.length);
      out.set(taken === chunk.length ? chunk : chunk.subarray(0, taken), to);
      if (taken === chunk.length) this.#dropFront();
      else this.#chunks[this.#first] = chunk.subarray(taken);
      this.#bytes -= taken;
      to += taken;
      left -= taken;
    }
  }

  clear(): void {
    this.#chunks = [];
    this.#first = 0;
    this.#bytes = 0;
    this.#gather = undefined;
    this.#gatherFilled = 0;
  }

  #front(): Uint8Array | undefined {
    if (this.#first === this.#chunks.length) this.#seal();
    return this.#chunks[this.#first];
  }

  #seal(): void {
    if (this.#gather === undefined) return;
    this.#chunks.push(this.#gather.subarray(0, this.#gatherFilled));
    this.#gather = undefined;
    this.#gatherFilled = 0;
  }

  #dropFront(): void {
    this.#first += 1;
    if (this.#first * 2 <= this.#chunks.length) return;
    this.#chunks = this.#chunks.slice(this.#first);
    this.#first = 0;
  }
}
