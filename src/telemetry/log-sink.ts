/**
 * Where log lines go: batched, never dropped, in memory only up to a bound.
 *
 * Not sonic-boom (pino's own): its `flushSync` spins for ever on EPIPE and overtakes a write in flight.
 */
import fs from 'node:fs';
import process from 'node:process';
import type { Clock } from '../base/clock.ts';
import { hasCode } from '../base/errors.ts';

/** Where finished lines go. */
export interface LogSink {
  write(line: string): void;
}

/** Longest wait of a line for company, ms; one write then carries them all. */
const BATCH_MS = 10;
/** Bytes per write: PIPE_BUF, up to which a write to a pipe is atomic, so that lines are never torn (pipe(7)). */
const CHUNK_BYTES = 4_096;
/** Lines waiting for a slow reader, UTF-16 units. Past it the writer waits for the reader, as ztunnel does. */
const MAX_PENDING = 4 * 1_048_576;
/** Pause before a full non-blocking descriptor is tried again, ms. */
const RETRY_MS = 5;
/** Longest stay on the way out of the process for a reader that does not read, ms. */
const EXIT_PATIENCE_MS = 1_000;

/**
 * Log lines to a file descriptor. A reader that went away (EPIPE) silences it for good; a full disk costs the lines that do
 * not fit; nothing else loses any.
 */
export class FdSink implements LogSink, AsyncDisposable {
  readonly fd: number;
  readonly #clock: Clock;
  /** Each is at most one chunk, whole lines only. */
  #chunks: string[] = [];
  #pending = 0;
  #isFlushDue = false;
  #isWriting = false;
  #isBroken = false;
  /** What a full descriptor did not take; nobody is writing it. */
  #stalled: Buffer | undefined;
  #idle: (() => void)[] = [];
  readonly #onExit = (): void => this.#writeAll(EXIT_PATIENCE_MS);

  constructor(fd: number, clock: Clock) {
    this.fd = fd;
    this.#clock = clock;
    process.on('exit', this.#onExit);
  }

  write(line: string): void {
    if (this.#isBroken) return;
    this.#append(line);
    if (this.#pending > MAX_PENDING) this.flushSync();
    else if (this.#chunks.length > 1) this.#pump();
    else this.#flushSoon();
  }

  /** Writes what is pending now and waits for the reader however long it takes. */
  flushSync(): void {
    this.#writeAll(Infinity);
  }

  /** Resolves when every line was handed to the kernel. */
  async [Symbol.asyncDispose](): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#idle.push(resolve);
      this.#pump();
    });
    process.off('exit', this.#onExit);
  }

  #append(line: string): void {
    const last = this.#chunks.length - 1;
    const chunk = this.#chunks[last];
    this.#pending += line.length;
    if (chunk !== undefined && Buffer.byteLength(chunk) + Buffer.byteLength(line) <= CHUNK_BYTES) {
      this.#chunks[last] = chunk + line;
    } else {
      this.#chunks.push(line);
    }
  }

  #flushSoon(): void {
    if (this.#isFlushDue || this.#isWriting) return;
    this.#isFlushDue = true;
    this.#clock.after(BATCH_MS, () => {
      this.#isFlushDue = false;
      this.#pump();
    });
  }

  /** Starts the next write unless one is under way. */
  #pump(): void {
    if (this.#isWriting) return;
    const chunk = this.#take();
    if (chunk === undefined) {
      for (const resolve of this.#idle.splice(0)) resolve();
      return;
    }
    this.#isWriting = true;
    this.#writeAsync(Buffer.from(chunk));
  }

  #writeAsync(bytes: Buffer): void {
    fs.write(this.fd, bytes, 0, bytes.length, null, (error, written) => {
      if (error === null && written < bytes.length) return this.#writeAsync(bytes.subarray(written));
      if (isFull(error)) return this.#retryLater(bytes);
      if (isReaderGone(error)) this.#break();
      this.#isWriting = false;
      this.#pump();
    });
  }

  #retryLater(bytes: Buffer): void {
    this.#stalled = bytes;
    this.#clock.after(RETRY_MS, () => {
      const stalled = this.#stalled;
      this.#stalled = undefined;
      this.#writeAsync(stalled ?? Buffer.alloc(0));
    });
  }

  /** A write under way in the thread pool goes on by itself; whole chunks may change places, lines are not torn. */
  #writeAll(patienceMs: number): void {
    const stalled = this.#stalled ?? Buffer.alloc(0);
    this.#stalled = undefined;
    if (!this.#writeSync(stalled, patienceMs)) return this.#break();
    for (let chunk = this.#take(); chunk !== undefined; chunk = this.#take()) {
      if (!this.#writeSync(Buffer.from(chunk), patienceMs)) return this.#break();
    }
  }

  /** False: there is no use in writing more. */
  #writeSync(bytes: Buffer, patienceMs: number): boolean {
    for (let waitedMs = 0, at = 0; at < bytes.length; ) {
      try {
        at += fs.writeSync(this.fd, bytes, at);
      } catch (error) {
        if (!isFull(error)) return !isReaderGone(error);
        if (waitedMs >= patienceMs) return false;
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, RETRY_MS);
        waitedMs += RETRY_MS;
      }
    }
    return true;
  }

  #take(): string | undefined {
    const chunk = this.#chunks.shift();
    this.#pending -= chunk?.length ?? 0;
    return chunk;
  }

  #break(): void {
    this.#isBroken = true;
    this.#chunks = [];
    this.#pending = 0;
  }
}

function isReaderGone(error: unknown): boolean {
  return hasCode(error, 'EPIPE');
}

function isFull(error: unknown): boolean {
  return hasCode(error, 'EAGAIN', 'EBUSY');
}
