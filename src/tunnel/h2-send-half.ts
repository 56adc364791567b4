/** What we say on one stream (RFC 9113 §5.1): payload within its window, then END_STREAM, alone or with trailers. */
import { ChunkQueue } from './h2-chunks.ts';
import type { SendingStream } from './h2-sender.ts';
import type { OutgoingHeaders, SendHost } from './h2-stream-host.ts';

export interface SendHalfOwner {
  /** A `write` that returned false has been flushed below the low-water mark. */
  drained(): void;
  /** Our half is over: END_STREAM was framed, or what we say is lost. Called once, unless it is closed before. */
  sendEnded(): void;
}

export class H2SendHalf implements SendingStream {
  id = 0;
  window: number;
  outbox: ChunkQueue | undefined;
  isBlocked = false;
  isReady = false;
  turnBefore: SendingStream | undefined;
  turnAfter: SendingStream | undefined;
  readonly #host: SendHost;
  readonly #owner: SendHalfOwner;
  #isOpen = false;
  #hasEnded = false;
  #isEndSent = false;
  #trailers: OutgoingHeaders | undefined;
  #isBroken = false;

  constructor(host: SendHost, owner: SendHalfOwner, windowBytes: number) {
    this.#host = host;
    this.#owner = owner;
    this.window = windowBytes;
  }

  /** HEADERS of ours went out, so DATA may follow. */
  get isOpen(): boolean {
    return this.#isOpen;
  }

  get hasEnded(): boolean {
    return this.#hasEnded;
  }

  get hasTrailers(): boolean {
    return this.#trailers !== undefined;
  }

  /** END_STREAM was framed, or nothing we say arrives any more. */
  get isEndSent(): boolean {
    return this.#isEndSent;
  }

  /** Octets accepted by `write` and not framed yet. */
  get bufferedBytes(): number {
    return this.outbox?.bytes ?? 0;
  }

  /** HEADERS have gone; `isEnd`: with END_STREAM. */
  opened(isEnd: boolean): void {
    this.#isOpen = true;
    if (isEnd) this.close();
    else if (this.bufferedBytes > 0) this.#host.queued(this, 0);
    else if (this.#hasEnded) this.#sendEnd();
  }

  write(chunk: Uint8Array, isLent: boolean): boolean {
    if (this.#hasEnded) return true;
    if (this.#isBroken) {
      this.#endBroken();
      return true;
    }
    let rest = chunk;
    if (this.#isOpen && this.bufferedBytes === 0) {
      const sent = this.#host.sendNow(this, chunk);
      if (sent === chunk.length) return this.#host.mayGoOn(this, sent);
      if (sent > 0) rest = chunk.subarray(sent);
    }
    if (rest.length === 0) return true;
    this.outbox ??= new ChunkQueue();
    this.outbox.push(rest, isLent);
    return this.#host.queued(this, rest.length);
  }

  end(trailers: OutgoingHeaders | undefined): void {
    if (this.#hasEnded) return;
    if (this.#isBroken) {
      this.#endBroken();
      return;
    }
    this.#hasEnded = true;
    this.#trailers = trailers;
    if (this.#isOpen && this.bufferedBytes === 0) this.#sendEnd();
  }

  /** Sender: below the low-water mark, or the last octet was framed. */
  flushed(): void {
    if (this.#hasEnded && this.bufferedBytes === 0) {
      if (this.hasTrailers && !this.#isEndSent) this.#sendEnd();
      else this.#ended();
    } else if (this.isBlocked) {
      this.isBlocked = false;
      this.#owner.drained();
    }
  }

  /**
   * An orderly reset of the peer: what we write is lost from now on, as on a TCP socket whose peer is gone. Our half ends with the
   * next word, or now when there was one that it did not hear.
   */
  breakPipe(): void {
    const hadUnsent = this.#dropOutbox();
    this.#isBroken = true;
    if (hadUnsent || this.#hasEnded) this.#endBroken();
  }

  /** Nothing more is said, and nobody told. */
  close(): void {
    this.#hasEnded = true;
    this.#isEndSent = true;
    this.#dropOutbox();
  }

  #endBroken(): void {
    this.#hasEnded = true;
    this.#ended();
  }

  #sendEnd(): void {
    this.#host.sendEnd(this, this.#trailers);
    this.#ended();
  }

  #ended(): void {
    if (this.#isEndSent) return;
    this.#isEndSent = true;
    this.#owner.sendEnded();
  }

  /** True when there was something in it. */
  #dropOutbox(): boolean {
    const bytes = this.bufferedBytes;
    this.outbox?.clear();
    this.outbox = undefined;
    if (bytes > 0) this.#host.dropped(this, bytes);
    return bytes > 0;
  }
}
