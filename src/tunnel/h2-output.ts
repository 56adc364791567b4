/** Outgoing octets of one session: frames are gathered and written to the socket a page at a time. */
import type { Duplex } from 'node:stream';
import type { LoopShare } from './loop-share.ts';
import { givePage, PAGE_BYTES, type Page, takePage } from './pages.ts';

export interface OutputSource {
  /** Called before each write to the socket: add queued DATA while `room` allows. */
  fill(): void;
  /** Called after each write was handed to the socket. */
  flushed(): void;
}

/**
 * One write at a time, one page each: TLS encrypts a single buffer without copying it again, and takes the next write
 * only in the next turn of the event loop.
 */
export class H2Output {
  readonly #socket: Duplex;
  readonly #source: OutputSource;
  readonly #share: LoopShare | undefined;
  readonly #flushScheduled = () => {
    this.#isScheduled = false;
    this.#share?.enter();
    this.flush();
    this.#share?.leave();
  };
  /** Pages to write, in order; the last one is being filled. More than one only when control frames pile up. */
  #pages: Page[] = [];
  #writing: Page[] = [];
  #isScheduled = false;
  #isClosed = false;
  #onEmpty: (() => void) | undefined;

  constructor(socket: Duplex, source: OutputSource, share?: LoopShare) {
    this.#socket = socket;
    this.#share = share;
    this.#source = source;
  }

  /** Octets framed and not yet given to the socket. */
  get pendingBytes(): number {
    let bytes = 0;
    for (const page of this.#pages) bytes += page.filled;
    return bytes;
  }

  /** Octets that DATA frames, headers included, may still add before the next write. */
  get room(): number {
    const page = this.#pages[0];
    if (page === undefined) return this.#isClosed ? 0 : PAGE_BYTES;
    return this.#pages.length > 1 ? 0 : PAGE_BYTES - page.filled;
  }

  /** A write is under way, so what is added now waits for it. */
  get isBusy(): boolean {
    return this.#writing.length > 0;
  }

  /** The page that DATA goes to: write at `filled` and advance it, after `room` said that it fits. */
  dataPage(): Page {
    let page = this.#pages[0];
    if (page === undefined) {
      page = takePage();
      this.#pages.push(page);
    }
    return page;
  }

  /** Adds a control frame. Always accepted; the owner bounds `pendingBytes`. */
  control(frame: Uint8Array): void {
    if (this.#isClosed) return;
    for (let from = 0; from < frame.length; ) {
      let page = this.#pages.at(-1);
      if (page === undefined || page.filled === PAGE_BYTES) {
        page = takePage();
        this.#pages.push(page);
      }
      const to = Math.min(frame.length, from + PAGE_BYTES - page.filled);
      page.bytes.set(frame.subarray(from, to), page.filled);
      page.filled += to - from;
      from = to;
    }
    this.schedule();
  }

  /**
   * Flushes when the running callback is done. What later callbacks of the same turn add goes with the next write, when
   * TLS has finished this one: at most two writes a turn, and no turn is spent on waiting.
   */
  schedule(): void {
    if (this.#isScheduled || this.#isClosed) return;
    this.#isScheduled = true;
    process.nextTick(this.#flushScheduled);
  }

  flush(): void {
    if (this.#writing.length > 0 || this.#isClosed) return;
    this.#source.fill();
    if (this.#pages.length === 0) {
      this.#finish();
      return;
    }
    this.#writing = this.#pages;
    this.#pages = [];
    this.#write(this.#writing);
    this.#source.flushed();
  }

  /** Calls `then` when everything added so far was handed to the kernel, and takes nothing more after that. */
  finish(then: () => void): void {
    this.#onEmpty = then;
    this.schedule();
  }

  /** Forgets what was not written. Pages in flight are left to the garbage collector: the socket may still read them. */
  close(): void {
    this.#isClosed = true;
    for (const page of this.#pages) givePage(page);
    this.#pages = [];
    this.#onEmpty = undefined;
  }

  #finish(): void {
    const then = this.#onEmpty;
    if (then === undefined) return;
    this.close();
    then();
  }

  #write(pages: readonly Page[]): void {
    if (pages.length > 1) this.#socket.cork();
    for (const [i, { bytes, filled }] of pages.entries()) {
      const chunk = bytes.subarray(0, filled);
      if (i < pages.length - 1) this.#socket.write(chunk);
      else this.#socket.write(chunk, this.#written);
    }
    if (pages.length > 1) this.#socket.uncork();
  }

  readonly #written = (error?: Error | null) => {
    this.#share?.enter();
    if (error === undefined || error === null) {
      for (const page of this.#writing) givePage(page);
      this.#writing = [];
      this.flush();
    }
    this.#share?.leave();
  };
}
