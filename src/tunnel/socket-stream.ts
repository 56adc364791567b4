/** A TCP socket as a `ByteStream`. The socket must have been made with `allowHalfOpen: true` and not be reading yet. */
import type net from 'node:net';
import { setImmediate } from 'node:timers';
import { MeshError, messageOf } from '../base/errors.ts';
import { lendTo } from '../sys/lending-socket.ts';
import { resetSocket } from '../sys/tcp.ts';
import type { ByteStream, ByteStreamHandlers } from './byte-stream.ts';

/** Ways in which TCP connections end every day; the reference calls them ordinary termination too (datapath facts §1.9). */
const ORDINARY_ENDS: ReadonlySet<string> = new Set(['ECONNRESET', 'EPIPE', 'ENOTCONN', 'ECONNABORTED']);

/**
 * Large chunks of one turn leave in one system call: TLS gives bulk data out in records of 16 KiB, four or more a read.
 * Small chunks are requests and answers; they leave at once.
 */
const BULK_BYTES = 8 * 1024;
const MAX_CORKED_BYTES = 60 * 1024;

export class SocketStream implements ByteStream {
  readonly #socket: net.Socket;
  #failure: MeshError | undefined;
  #isLending = false;
  #corkedBytes = 0;

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
    if (chunk.length >= BULK_BYTES) this.#cork(chunk.length);
    // The kernel may take only a part now, and Node would keep the chunk for the rest.
    return socket.write(isLent ? new Uint8Array(chunk) : chunk);
  }

  end(): void {
    this.#uncork();
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
    return this.#socket.writableLength;
  }

  #cork(bytes: number): void {
    if (this.#corkedBytes === 0) {
      this.#socket.cork();
      setImmediate(this.#uncork);
    } else if (this.#corkedBytes + bytes > MAX_CORKED_BYTES) {
      // What is there goes now; the rest of the turn gathers anew, under the same immediate.
      this.#socket.uncork();
      this.#socket.cork();
      this.#corkedBytes = 0;
    }
    this.#corkedBytes += bytes;
  }

  readonly #uncork = (): void => {
    if (this.#corkedBytes === 0) return;
    this.#corkedBytes = 0;
    this.#socket.uncork();
  };
}

function codeOf(error: Error): string {
  return 'code' in error && typeof error.code === 'string' ? error.code : '';
}
