/** A client that streams numbered records to a server which sends them back, and counts what is lost, doubled or out of order. */
import type net from 'node:net';

/** Large enough that records cross reads and writes at odd places. */
const RECORD_BYTES = 332;
/** Records on their way at once. */
const WINDOW = 4;

/** Sends every byte back. */
export function echo(socket: net.Socket): void {
  socket.on('data', (chunk: Buffer) => {
    if (!socket.write(chunk)) socket.pause();
  });
  socket.on('drain', () => socket.resume());
  socket.on('end', () => socket.end());
}

export class NumberedStream {
  readonly #socket: net.Socket;
  readonly #intervalMs: number;
  readonly #done = Promise.withResolvers<void>();
  #sent = 0;
  #received = 0;
  #rest = Buffer.alloc(0);
  #isStopping = false;
  #lastMs = performance.now();
  #pauseMs = 0;
  #failure: string | undefined;

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
      if (this.#received < this.#sent) this.#fail(`closed after ${this.#received} of ${this.#sent} records`);
      this.#done.resolve();
    });
    socket.resume();
    this.#fill();
  }

  /** What went wrong, if anything did. */
  get failure(): string | undefined {
    return this.#failure;
  }

  get records(): number {
    return this.#received;
  }

  /** Longest time without a byte since the last call. */
  takePauseMs(): number {
    const pauseMs = Math.max(this.#pauseMs, performance.now() - this.#lastMs);
    this.#pauseMs = 0;
    this.#lastMs = performance.now();
    return pauseMs;
  }

  /** Ends in order: resolves when all that was sent came back and both halves are closed. */
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
    while (!this.#isStopping && this.#sent < this.#received + WINDOW) {
      const record = Buffer.alloc(RECORD_BYTES, this.#sent & 0xff);
      record.writeUInt32BE(this.#sent);
      this.#sent += 1;
      this.#socket.write(record);
    }
  }

  #take(chunk: Buffer): void {
    const nowMs = performance.now();
    this.#pauseMs = Math.max(this.#pauseMs, nowMs - this.#lastMs);
    this.#lastMs = nowMs;
    this.#rest = Buffer.concat([this.#rest, chunk]);
    let at = 0;
    for (; at + RECORD_BYTES <= this.#rest.length; at += RECORD_BYTES)
      this.#check(this.#rest.subarray(at, at + RECORD_BYTES));
    this.#rest = this.#rest.subarray(at);
    // A pause of its own between records: many streams on two cores must leave room for the agents.
    setTimeout(() => this.#fill(), this.#intervalMs);
  }

  #check(record: Buffer): void {
    const number = record.readUInt32BE();
    const isWhole = record.subarray(4).every((byte) => byte === (this.#received & 0xff));
    if (number !== this.#received || !isWhole) this.#fail(`record ${this.#received} came as ${number}`);
    this.#received += 1;
  }

  #fail(what: string): void {
    this.#failure ??= what;
    this.#done.resolve();
  }
}
