/** A TCP socket as a `ByteStream`. The socket must have been made with `allowHalfOpen: true` and not be reading yet. */
import type net from 'node:net';
import { setImmediate } from 'node:timers';
import { MeshError, messageOf } from '../base/errors.ts';
import { duplicate } from '../sys/duplicate.ts';
import { LENT_BYTES, lendTo } from '../sys/lending-socket.ts';
import { Pipe } from '../sys/pipe.ts';
import { resetSocket, sendNow, socketFd } from '../sys/tcp.ts';
import type { ByteStream, ByteStreamHandlers } from './byte-stream.ts';
import type { LoopShare } from './loop-share.ts';
import { givePage, PAGE_BYTES, type Page, takePage } from './pages.ts';
import { Splice, type SpliceEnd } from './splice.ts';
import { PLAIN_PRICE, TurnedReader } from './turned-reader.ts';

/** Ways in which TCP connections end every day; the reference calls them ordinary termination too. */
const ORDINARY_ENDS: ReadonlySet<string> = new Set(['ECONNRESET', 'EPIPE', 'ENOTCONN', 'ECONNABORTED']);

/**
 * Bulk chunks of one turn leave in one system call: TLS gives bulk data out in records of 16 KiB, four or more a read.
 * Smaller ones are requests and answers; they leave at once.
 */
const BULK_BYTES = 8 * 1024;
/** Longer chunks come from a socket, one a read: there is nothing to gather them with. */
const RECORD_BYTES = 16 * 1024;

const STREAM = Symbol('stream');
type StreamedSocket = net.Socket & { [STREAM]?: SocketStream };

export class SocketStream implements ByteStream, SpliceEnd {
  readonly fullChunkBytes = LENT_BYTES;
  readonly #socket: net.Socket;
  readonly #share: LoopShare | undefined;
  #handlers: ByteStreamHandlers | undefined;
  #reader: TurnedReader | undefined;
  #isLending = false;
  /** Bulk bytes of this turn, not yet given to the socket. */
  #page: Page | undefined;
  /** What waits in a pipe of a splice. */
  #pipedBytes = 0;
  /** What the share was told of. */
  #toldBytes = 0;

  /** `share`: of the workload that it belongs to; absent = it need not wait for turns. */
  constructor(socket: net.Socket, share?: LoopShare) {
    this.#socket = socket;
    this.#share = share;
    // A reset may arrive before `open`; without a listener it would end the process. What it was is known at the end.
    if (socket.listenerCount('error') === 0) socket.on('error', ignore);
  }

  get isLending(): boolean {
    return this.#isLending;
  }

  open(handlers: ByteStreamHandlers): void {
    const socket: StreamedSocket = this.#socket;
    if (socket.destroyed) {
      handlers.onClose(failureOf(socket));
      return;
    }
    const reader = new TurnedReader({ socket, share: this.#share, price: PLAIN_PRICE, receiver: handlers });
    this.#handlers = handlers;
    this.#reader = reader;
    this.#isLending = lendTo(socket, reader);
    socket[STREAM] = this;
    socket.on('end', onEnd);
    socket.on('drain', onDrain);
    socket.on('close', onClose);
    if (!this.#isLending) socket.on('data', (chunk: Buffer) => reader.take(chunk));
    else if (socket.readableLength > 0) this.#takeBack(socket, reader);
    socket.resume();
  }

  /** What somebody has read and put back. */
  #takeBack(socket: net.Socket, reader: TurnedReader): void {
    const chunk: unknown = socket.read();
    if (chunk instanceof Uint8Array) reader.take(chunk);
  }

  /** @internal Listeners of the socket only, as are the next two. */
  ended(): void {
    this.#share?.enter();
    this.#reader?.flush();
    this.#handlers?.onEnd();
  }

  drained(): void {
    this.#share?.enter();
    this.#tellShare();
    this.#handlers?.onDrain();
  }

  closed(): void {
    this.#share?.enter();
    this.#reader?.flush();
    this.#tellShare(0);
    this.#handlers?.onClose(failureOf(this.#socket));
  }

  write(chunk: Uint8Array, isLent = false): boolean {
    const socket = this.#socket;
    if (!socket.writable) return true;
    // The end of a frame is a small chunk, too: behind bulk of this turn it goes with that.
    const least = this.#page === undefined ? BULK_BYTES : 0;
    if (chunk.length < least || chunk.length > RECORD_BYTES) this.#writeNow(chunk, isLent);
    else this.#gather(chunk);
    this.#tellShare();
    return !socket.writableNeedDrain;
  }

  end(): void {
    this.#flushPage();
    if (this.#socket.writable) this.#socket.end();
  }

  pause(): void {
    if (this.#reader === undefined) this.#socket.pause();
    else this.#reader.pause();
  }

  resume(): void {
    if (this.#reader === undefined) this.#socket.resume();
    else this.#reader.resume();
  }

  destroy(error?: MeshError): void {
    if (error === undefined) this.#socket.destroy();
    else resetSocket(this.#socket);
  }

  get bufferedBytes(): number {
    return this.#unwrittenBytes + (this.#reader?.keptBytes ?? 0);
  }

  get isEnding(): boolean {
    const { writableEnded, writableFinished, destroyed } = this.#socket;
    return writableEnded && !writableFinished && !destroyed;
  }

  get #unwrittenBytes(): number {
    return this.#socket.writableLength + (this.#page?.filled ?? 0);
  }

  #tellShare(bytes = this.#unwrittenBytes + this.#pipedBytes): void {
    if (this.#share === undefined || bytes === this.#toldBytes) return;
    this.#share.bufferedBytes += bytes - this.#toldBytes;
    this.#toldBytes = bytes;
  }

  duplicate(): number | undefined {
    const fd = socketFd(this.#socket);
    // What an ordinary socket has read and not given out would be lost; a lending one keeps nothing.
    if (fd === undefined || !this.#isLending || this.bufferedBytes > 0 || this.isEnding) return undefined;
    try {
      return duplicate(fd);
    } catch {
      // Out of descriptors: it goes on here.
      return undefined;
    }
  }

  spliceInto(sink: ByteStream, onFlushed: () => void): Splice | undefined {
    if (!(sink instanceof SocketStream)) return undefined;
    return new Splice({ source: this, sink }, () => Pipe.take(), onFlushed);
  }

  get fd(): number | undefined {
    return socketFd(this.#socket);
  }

  get isFlushed(): boolean {
    this.#flushPage();
    return this.#socket.writable && this.#unwrittenBytes === 0;
  }

  writeThen(piece: Uint8Array, then: () => void): void {
    if (!this.#socket.writable) return;
    this.#socket.write(piece, (error) => {
      if (error === undefined || error === null) then();
    });
  }

  waits(pipedBytes: number): void {
    this.#pipedBytes = pipedBytes;
    if (!this.#socket.destroyed) this.#tellShare();
  }

  fail(errno: string): void {
    this.#socket.destroy(Object.assign(new Error(`splice ${errno}`), { code: errno }));
  }

  /** In one system call and without a copy when the kernel takes it all, as it does unless the reader is slow. */
  #writeNow(chunk: Uint8Array, isLent: boolean): void {
    this.#flushPage();
    const socket = this.#socket;
    const sent = socket.writableLength === 0 ? sendNow(socket, chunk) : 0;
    if (sent === chunk.length) return;
    const rest = chunk.subarray(sent);
    socket.write(isLent ? Buffer.from(rest) : rest);
  }

  #gather(chunk: Uint8Array): void {
    if (this.#page !== undefined && this.#page.filled + chunk.length > PAGE_BYTES) this.#flushPage();
    const page = this.#page ?? this.#startPage();
    page.bytes.set(chunk, page.filled);
    page.filled += chunk.length;
    if (PAGE_BYTES - page.filled < BULK_BYTES) this.#flushPage();
  }

  #startPage(): Page {
    this.#page = takePage();
    setImmediate(SocketStream.#flushTurn, this);
    return this.#page;
  }

  static readonly #flushTurn = (stream: SocketStream): void => stream.#flushPage();

  #flushPage(): void {
    const page = this.#page;
    if (page === undefined) return;
    this.#page = undefined;
    // A page of a failed write may still be in use below: it is left to the garbage collector.
    this.#socket.write(page.bytes.subarray(0, page.filled), (error) => {
      if (error !== undefined && error !== null) return;
      givePage(page);
      if (!this.#socket.destroyed) this.#tellShare();
    });
  }
}

// One listener for all sockets, thousands of which idle: Node calls it on its socket.

function onEnd(this: StreamedSocket): void {
  this[STREAM]?.ended();
}

function onDrain(this: StreamedSocket): void {
  this[STREAM]?.drained();
}

function onClose(this: StreamedSocket): void {
  this[STREAM]?.closed();
}

/** Why the socket broke, unless that is how TCP ends. */
function failureOf({ errored }: net.Socket): MeshError | undefined {
  if (errored === null || ORDINARY_ENDS.has(codeOf(errored))) return undefined;
  return new MeshError('CV-IO', `io error: ${messageOf(errored)}`);
}

function codeOf(error: Error): string {
  return 'code' in error && typeof error.code === 'string' ? error.code : '';
}

function ignore(): void {}
