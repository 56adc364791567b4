/** A FIFO of octets. Its memory follows the octets in it, not the number of chunks they came in. */
import { givePage, type Page, takePage } from './pages.ts';

/** Below this a chunk is copied: a view costs about 100 bytes and may keep a much larger buffer alive. */
const SMALL_CHUNK_BYTES = 1024;
/** Buffer for small chunks: most streams that hold something hold little. */
const SMALL_BUFFER_BYTES = 4096;
/** Only a queue that holds this much borrows pages: many streams may hold a little each. */
const BULK_BYTES = 32 * 1024;

/** `bytes[from, to)` is queued. */
interface Entry {
  readonly bytes: Uint8Array;
  from: number;
  to: number;
  /** When `bytes` is borrowed from the pool. */
  readonly page: Page | undefined;
}

export class ChunkQueue {
  #entries: Entry[] = [];
  #first = 0;
  #bytes = 0;
  /** The last entry, when it is a buffer of ours and may take more. */
  #open: Entry | undefined;
  /** Its octets were given out by `shift` and may still be looked at. */
  #lent: Page | undefined;

  get bytes(): number {
    return this.#bytes;
  }

  /** Keeps `chunk` itself, or a copy when it is small or only lent. */
  push(chunk: Uint8Array, isLent: boolean): void {
    this.#bytes += chunk.length;
    if (!isLent && chunk.length >= SMALL_CHUNK_BYTES) {
      this.#open = undefined;
      this.#entries.push({ bytes: chunk, from: 0, to: chunk.length, page: undefined });
      return;
    }
    for (let from = 0; from < chunk.length; ) {
      const entry = this.#openEntry(chunk.length - from);
      const taken = Math.min(chunk.length - from, entry.bytes.length - entry.to);
      entry.bytes.set(taken === chunk.length ? chunk : chunk.subarray(from, from + taken), entry.to);
      entry.to += taken;
      from += taken;
    }
  }

  /** The next octets, removed; valid until the next call. `undefined` when empty. */
  shift(): Uint8Array | undefined {
    this.#giveLent();
    const entry = this.#entries[this.#first];
    if (entry === undefined) return undefined;
    this.#bytes -= entry.to - entry.from;
    this.#lent = entry.page;
    this.#dropFirst(entry);
    return entry.bytes.subarray(entry.from, entry.to);
  }

  /** Moves the next `count` octets (at most `bytes`) to `out[at…]`. */
  copyTo(out: Uint8Array, at: number, count: number): void {
    this.#bytes -= count;
    for (let left = count; left > 0; ) {
      const entry = this.#entries[this.#first];
      if (entry === undefined) return;
      const taken = Math.min(left, entry.to - entry.from);
      out.set(entry.bytes.subarray(entry.from, entry.from + taken), at + count - left);
      entry.from += taken;
      left -= taken;
      if (entry.from < entry.to) return;
      this.#dropFirst(entry);
      if (entry.page !== undefined) givePage(entry.page);
    }
  }

  /** Forgets everything. Borrowed pages go back, but for one that a receiver may be looking at right now. */
  clear(): void {
    this.#lent = undefined;
    for (const { page } of this.#entries.slice(this.#first)) if (page !== undefined) givePage(page);
    this.#entries = [];
    this.#first = 0;
    this.#bytes = 0;
    this.#open = undefined;
  }

  #openEntry(bytes: number): Entry {
    if (this.#open !== undefined && this.#open.to < this.#open.bytes.length) return this.#open;
    const page = this.#bytes < BULK_BYTES ? undefined : takePage();
    const own = bytes < SMALL_CHUNK_BYTES ? SMALL_BUFFER_BYTES : bytes;
    const entry = { bytes: page?.bytes ?? new Uint8Array(own), from: 0, to: 0, page };
    this.#entries.push(entry);
    this.#open = entry;
    return entry;
  }

  #giveLent(): void {
    if (this.#lent === undefined) return;
    givePage(this.#lent);
    this.#lent = undefined;
  }

  #dropFirst(entry: Entry): void {
    if (this.#open === entry) this.#open = undefined;
    this.#first += 1;
    if (this.#first * 2 <= this.#entries.length) return;
    this.#entries = this.#entries.slice(this.#first);
    this.#first = 0;
  }
}
