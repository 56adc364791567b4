/** What the peer says on one stream: payload, kept while nobody takes it, and then its end. Nothing overtakes what is kept. */

import type { MeshError } from '../base/errors.ts';
import { toMeshError } from '../base/errors.ts';
import type { HeaderValues } from '../wire/h2-head.ts';
import type { ByteStreamHandlers } from './byte-stream.ts';
import { ChunkQueue } from './h2-chunks.ts';
import type { ReceiveHost } from './h2-stream-host.ts';

export interface ReceiveHalfOwner {
  /** The receiver was told of the end. */
  receiveEnded(): void;
  /** A receiver that throws is our bug: it ends this stream, not the session, let alone the process. */
  destroy(error: MeshError): void;
}

export class H2ReceiveHalf {
  id = 0;
  /** What the peer may still send, and what was taken of it and is not told yet. */
  window: number;
  unclaimedBytes = 0;
  readonly #host: ReceiveHost;
  readonly #owner: ReceiveHalfOwner;
  #handlers: ByteStreamHandlers | undefined;
  #inbox: ChunkQueue | undefined;
  #isOpen = false;
  #isPaused = false;
  #hasEnded = false;
  #trailers: HeaderValues | undefined;
  #isEndTold = false;
  #isClosed = false;

  constructor(host: ReceiveHost, owner: ReceiveHalfOwner, windowBytes: number) {
    this.#host = host;
    this.#owner = owner;
    this.window = windowBytes;
  }

  /** The peer may still send. */
  get isOpen(): boolean {
    return this.#isOpen;
  }

  /** END_STREAM has arrived, though not all before it may be delivered. */
  get hasEnded(): boolean {
    return this.#hasEnded;
  }

  /** What came with it. */
  get trailers(): HeaderValues | undefined {
    return this.#trailers;
  }

  get isEndTold(): boolean {
    return this.#isEndTold;
  }

  /** Octets that have arrived and wait for a paused receiver. */
  get keptBytes(): number {
    return this.#inbox?.bytes ?? 0;
  }

  /** On the wire. */
  opened(): void {
    this.#isOpen = true;
  }

  /** Nothing comes any more; what has come is delivered all the same. */
  gone(): void {
    this.#isOpen = false;
  }

  deliverTo(handlers: ByteStreamHandlers): void {
    this.#handlers = handlers;
    this.#deliverKept();
  }

  pause(): void {
    this.#isPaused = true;
  }

  resume(): void {
    if (!this.#isPaused) return;
    this.#isPaused = false;
    this.#deliverKept();
  }

  /** Payload, counted against both windows already. */
  receive(chunk: Uint8Array): void {
    const handlers = this.#handlers;
    if (this.#isClosed) {
      this.#host.credit(this, chunk.length, false);
    } else if (handlers === undefined || this.#isPaused || this.#inbox !== undefined) {
      this.#inbox ??= new ChunkQueue();
      this.#inbox.push(chunk, this.#host.isLending);
      this.#host.parked(chunk.length);
    } else {
      this.#deliver(handlers, chunk);
      this.#host.credit(this, chunk.length, false);
    }
  }

  /** END_STREAM, or a reset that reads as one; `tellEnd` follows. */
  end(trailers: HeaderValues | undefined): void {
    this.#isOpen = false;
    this.#hasEnded = true;
    this.#trailers = trailers;
  }

  /** Tells the receiver of the end, once it has all that came before. */
  tellEnd(): void {
    const isDue = this.#hasEnded && !this.#isEndTold && this.#inbox === undefined;
    if (!isDue || this.#handlers === undefined || this.#isClosed) return;
    this.#isEndTold = true;
    try {
      this.#handlers.onEnd();
    } catch (caught) {
      this.#owner.destroy(toMeshError(caught));
    }
    this.#owner.receiveEnded();
  }

  /** All that is kept, taken out of the stream: nothing else may be under way on it. */
  take(): Uint8Array {
    const taken = new Uint8Array(this.keptBytes);
    this.#inbox?.copyTo(taken, 0, taken.length);
    this.#drop(taken.length);
    return taken;
  }

  /** What is kept is lost, and what still comes. */
  close(): void {
    this.#isOpen = false;
    this.#isClosed = true;
    const bytes = this.keptBytes;
    this.#inbox?.clear();
    this.#drop(bytes);
  }

  #drop(bytes: number): void {
    this.#inbox = undefined;
    if (bytes > 0) this.#host.credit(this, bytes, true);
  }

  #deliverKept(): void {
    while (this.#inbox !== undefined && this.#handlers !== undefined && !this.#isPaused && !this.#isClosed) {
      const chunk = this.#inbox.shift();
      if (chunk === undefined) {
        this.#inbox = undefined;
      } else {
        this.#deliver(this.#handlers, chunk);
        this.#host.credit(this, chunk.length, true);
      }
    }
    this.tellEnd();
  }

  #deliver(handlers: ByteStreamHandlers, chunk: Uint8Array): void {
    try {
      handlers.onData(chunk);
    } catch (caught) {
      this.#owner.destroy(toMeshError(caught));
    }
  }
}
