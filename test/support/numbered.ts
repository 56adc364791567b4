/** Streams of numbered records between two ends, and what of them is lost, doubled or out of order. */
import type net from 'node:net';

/** Large enough that records cross reads and writes at odd places. */
const RECORD_BYTES = 332;
/** Records on their way at once. */
export const WINDOW = 4;

/** Sends every byte back. */
export function echo(socket: net.Socket): void {
  socket.on('data', (chunk: Buffer) => {
    if (!socket.write(chunk)) socket.pause();
  });
  socket.on('drain', () => socket.resume());
  socket.on('end', () => socket.end());
}

export function recordOf(number: number): Buffer {
  const record = Buffer.alloc(RECORD_BYTES, number & 0xff);
  record.writeUInt32BE(number);
  return record;
}

/** Looks at every byte that comes. */
export class RecordReader {
  records = 0;
  /** What went wrong, if anything did. */
  failure: string | undefined;
  #rest = Buffer.alloc(0);
  #lastMs = performance.now();
  #pauseMs = 0;

  take(chunk: Buffer): void {
    const nowMs = performance.now();
    this.#pauseMs = Math.max(this.#pauseMs, nowMs - this.#lastMs);
    this.#lastMs = nowMs;
    this.#rest = Buffer.concat([this.#rest, chunk]);
    let at = 0;
    for (; at + RECORD_BYTES <= this.#rest.length; at += RECORD_BYTES)
      this.#check(this.#rest.subarray(at, at + RECORD_BYTES));
    this.#rest = this.#rest.subarray(at);
  }

  /** Longest time without a byte since the last call. */
  takePauseMs(): number {
    const pauseMs = Math.max(this.#pauseMs, performance.now() - this.#lastMs);
    this.#pauseMs = 0;
    this.#lastMs = performance.now();
    return pauseMs;
  }

  fail(what: string): void {
    this.failure ??= what;
  }

  #check(record: Buffer): void {
    const number = record.readUInt32BE();
    const isWhole = record.subarray(4).every((byte) => byte === (this.records & 0xff));
    if (number !== this.records || !isWhole) this.fail(`record ${this.records} came as ${number}`);
    this.records += 1;
  }
}

/** Records that one end sends, as they come to the other end or back. */
export interface RecordStream {
  readonly received: RecordReader;
  /** Ends in order: resolves when all that was sent has come, and the end behind it. */
  stop(): Promise<void>;
  abort(): void;
}

/** A client that streams records to a server which sends them back. */
export class NumberedStream implements RecordStream {
  readonly received = new RecordReader();
  readonly #socket: net.Socket;
  readonly #intervalMs: number;
  readonly #done = Promise.withResolvers<void>();
  #sent = 0;
  #isStopping = false;

  /** `intervalMs`: from an answer to what is sent next. */
  constructor(socket: net.Socket, intervalMs: number) {
    this.#socket = socket;
    this.#intervalMs = intervalMs;
    socket.on('data', (chunk: Buffer) => this.#take(chunk));
    socket.on('error', (error) => this.#fail(error.message));
    socket.on('end', () => {
      if (!this.#isStopping) this.#fail('ended early');
    });
    socket.on('close', () => {
      if (this.received.records < this.#sent)
        this.#fail(`closed after ${this.received.records} of ${this.#sent} records`);
      this.#done.resolve();
    });
    socket.resume();
    this.#fill();
  }

  async stop(): Promise<void> {
    this.#isStopping = true;
    this.#socket.end();
    await this.#done.promise;
  }

  abort(): void {
    this.#isStopping = true;
    this.#socket.destroy();
  }

  #fill(): void {
    while (!this.#isStopping && this.#sent < this.received.records + WINDOW) {
      this.#socket.write(recordOf(this.#sent));
      this.#sent += 1;
    }
  }

  #take(chunk: Buffer): void {
    this.received.take(chunk);
    // A pause of its own between records: many streams on two cores must leave room for the agents.
    setTimeout(() => this.#fill(), this.#intervalMs);
  }

  #fail(what: string): void {
    this.received.fail(what);
    this.#done.resolve();
  }
}
