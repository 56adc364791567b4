/** A TCP socket as a `ByteStream`. The socket must have been made with `allowHalfOpen: true` and not be reading yet. */
import type net from 'node:net';
import { setImmediate } from 'node:timers';
import { MeshError, messageOf } from '../base/errors.ts';
import { duplicate } from '../sys/duplicate.ts';
import { lendTo } from '../sys/lending-socket.ts';
import { resetSocket, socketFd } from '../sys/tcp.ts';
import type { ByteStream, ByteStreamHandlers } from './byte-stream.ts';
import { givePage, PAGE_BYTES, type Page, takePage } from './pages.ts';

/** Ways in which TCP connections end every day; the reference calls them ordinary termination too (datapath facts §1.9). */
const ORDINARY_ENDS: ReadonlySet<string> = new Set(['ECONNRESET', 'EPIPE', 'ENOTCONN', 'ECONNABORTED']);

/**
 * Bulk chunks of one turn leave in one system call: TLS gives bulk data out in records of 16 KiB, four or more a read.
 * Smaller ones are requests and answers; they leave at once.
 */
const BULK_BYTES = 8 * 1024;

export class SocketStream implements ByteStream {
  readonly #socket: net.Socket;
  #failure: MeshError | undefined;
  #isLending = false;
  /** Bulk bytes of this turn, not yet given to the socket. */
  #page: Page | undefined;

  constructor(socket: net.Socket) {
    this.#socket = socket;
    // A reset may arrive before `open`; without a listener it would end the process.
    socket.on('error', (error) => {
      if (!ORDINARY_ENDS.has(codeOf(error))) this.#failure ??= new MeshError('CV-IO', `io error: ${messageOf(error)}`);
    });
  }

  get isLending(): boolean {
    return this.#isLending;
  }

  open(handlers: ByteStreamHandlers): void {
    const socket = this.#socket;
    if (socket.destroyed) {
      handlers.onClose(this.#failure);
      return;
    }
    this.#isLending = lendTo(socket, (chunk) => handlers.onData(chunk));
    if (!this.#isLending) socket.on('data', (chunk: Buffer) => handlers.onData(chunk));
    socket.on('end', () => handlers.onEnd());
    socket.on('drain', () => handlers.onDrain());
    socket.on('close', () => handlers.onClose(this.#failure));
    socket.resume();
  }

  write(chunk: Uint8Array, isLent = false): boolean {
    const socket = this.#socket;
    if (!socket.writable) return true;
    if (this.#page !== undefined || chunk.length >= BULK_BYTES) this.#gather(chunk);
    // The kernel may take only a part now, and Node would keep the chunk for the rest.
    else socket.write(isLent ? Buffer.from(chunk) : chunk);
    return !socket.writableNeedDrain;
  }

  end(): void {
    this.#flushPage();
    if (this.#socket.writable) this.#socket.end();
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  destroy(error?: MeshError): void {
    if (error === undefined) this.#socket.destroy();
    else resetSocket(this.#socket);
  }

  get bufferedBytes(): number {
    return this.#socket.writableLength + (this.#page?.filled ?? 0);
  }

  duplicate(): number | undefined {
    const fd = socketFd(this.#socket);
    const { writableEnded, writableFinished } = this.#socket;
    const isFlushed = this.bufferedBytes === 0 && writableEnded === writableFinished;
    // What an ordinary socket has read and not given out would be lost; a lending one keeps nothing.
    return fd === undefined || !this.#isLending || !isFlushed ? undefined : duplicate(fd);
  }

  #gather(chunk: Uint8Array): void {
    for (let from = 0; from < chunk.length; ) {
      const page = this.#page ?? this.#startPage();
      const to = Math.min(chunk.length, from + PAGE_BYTES - page.filled);
      page.bytes.set(from === 0 && to === chunk.length ? chunk : chunk.subarray(from, to), page.filled);
      page.filled += to - from;
      from = to;
      if (page.filled === PAGE_BYTES) this.#flushPage();
    }
  }

  #startPage(): Page {
    this.#page = takePage();
    setImmediate(this.#flushTurn);
    return this.#page;
  }

  readonly #flushTurn = (): void => this.#flushPage();

  #flushPage(): void {
    const page = this.#page;
    if (page === undefined) return;
    this.#page = undefined;
    // A page of a failed write may still be in use below: it is left to the garbage collector.
    this.#socket.write(page.bytes.subarray(0, page.filled), (error) => {
      if (error === undefined || error === null) givePage(page);
    });
  }
}

function codeOf(error: Error): string {
  return 'code' in error && typeof error.code === 'string' ? error.code : '';
}
