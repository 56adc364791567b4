/** A TCP socket as a `ByteStream`. The socket must have been made with `allowHalfOpen: true` and not be reading yet. */
import type net from 'node:net';
import { MeshError, messageOf } from '../base/errors.ts';
import type { ByteStream, ByteStreamHandlers } from './byte-stream.ts';

/** Ways in which TCP connections end every day; the reference calls them ordinary termination too (datapath facts §1.9). */
const ORDINARY_ENDS: ReadonlySet<string> = new Set(['ECONNRESET', 'EPIPE', 'ENOTCONN', 'ECONNABORTED']);

export class SocketStream implements ByteStream {
  readonly #socket: net.Socket;
  #failure: MeshError | undefined;

  constructor(socket: net.Socket) {
    this.#socket = socket;
    // A reset may arrive before `open`; without a listener it would end the process.
    socket.on('error', (error) => {
      if (!ORDINARY_ENDS.has(codeOf(error))) this.#failure ??= new MeshError('CV-IO', `io error: ${messageOf(error)}`);
    });
  }

  open(handlers: ByteStreamHandlers): void {
    const socket = this.#socket;
    if (socket.destroyed) {
      handlers.onClose(this.#failure);
      return;
    }
    socket.on('data', (chunk: Buffer) => handlers.onData(chunk));
    socket.on('end', () => handlers.onEnd());
    socket.on('drain', () => handlers.onDrain());
    socket.on('close', () => handlers.onClose(this.#failure));
    socket.resume();
  }

  write(chunk: Uint8Array): boolean {
    const socket = this.#socket;
    return socket.writable ? socket.write(chunk) : true;
  }

  end(): void {
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
    else this.#socket.resetAndDestroy();
  }

  get bufferedBytes(): number {
    return this.#socket.writableLength;
  }
}

function codeOf(error: Error): string {
  return 'code' in error && typeof error.code === 'string' ? error.code : '';
}
