/** One CONNECT stream of an HBONE session as a `ByteStream` (RFC 9113 §5.1, §8.5). */
import { type MeshError, toMeshError } from '../base/errors.ts';
import type { HeaderValues, ResponseHead } from '../wire/h2-head.ts';
import { H2 } from '../wire/h2-protocol.ts';
import type { ByteStream, ByteStreamHandlers } from './byte-stream.ts';
import { ChunkQueue } from './h2-chunks.ts';
import type { SendingStream } from './h2-sender.ts';
import { isOrderlyReset, resetCodeOf, resetError, unansweredError } from './h2-stream-errors.ts';
import type { OutgoingHeaders, StreamHost } from './h2-stream-host.ts';

export interface StreamOptions {
  readonly isClient: boolean;
  readonly sendWindow: number;
  readonly receiveWindow: number;
}

/** How far the wire has come; the application may be behind. */
type WireState = 'waiting' | 'open' | 'gone';

export class H2Stream implements ByteStream, SendingStream {
  /** 0 while a request waits for a slot. */
  id = 0;
  sendWindow: number;
  /** What the peer may still send, and what we took and have not told it. */
  receiveWindow: number;
  unclaimedBytes = 0;
  isReady = false;
  isBlocked = false;
  outbox: ChunkQueue | undefined;
  /** Called when the stream ends before `open`: the owner should stop working on it. */
  onAborted: (() => void) | undefined;
  /**
   * Told as soon as the peer has ended its half, before all that it sent is delivered; and after that when it wants the stream
   * to go on elsewhere.
   */
  endWatcher: { remoteEnded(): void; suspendAsked(): void } | undefined;

  readonly #host: StreamHost;
  readonly #isClient: boolean;
  #handlers: ByteStreamHandlers | undefined;
  #inbox: ChunkQueue | undefined;
  #wire: WireState;
  #isPaused = false;
  #canSend = false;
  #hasLocalEnd = false;
  #trailers: OutgoingHeaders | undefined;
  #isLocalEndSent = false;
  #hasRemoteEnd = false;
  #remoteTrailers: HeaderValues | undefined;
  #isAskedToSuspend = false;
  #isRemoteEndTold = false;
  /** After an orderly reset: what we write is lost, as on a TCP socket whose peer is gone. */
  #isBrokenPipe = false;
  #isClosed = false;
  #closeError: MeshError | undefined;
  #hasResponse = false;
  #responseHead: ResponseHead | undefined;
  #response: PromiseWithResolvers<ResponseHead> | undefined;

  constructor(host: StreamHost, options: StreamOptions) {
    this.#host = host;
    this.#isClient = options.isClient;
    this.sendWindow = options.sendWindow;
    this.receiveWindow = options.receiveWindow;
    this.#wire = 'waiting';
  }

  /** Client: the answer to the request. Rejects when the stream or the session ends before it. Not kept after `open`. */
  get response(): Promise<ResponseHead> {
    if (this.#response === undefined) {
      this.#response = Promise.withResolvers();
      // An owner that gave up may never look; that must not end the process.
      this.#response.promise.catch(() => undefined);
      if (this.#responseHead !== undefined) this.#response.resolve(this.#responseHead);
      else if (this.#isClosed) this.#response.reject(this.#closeError ?? unansweredError());
    }
    return this.#response.promise;
  }

  /** Payload is given on as views of what the session read. */
  get isLending(): boolean {
    return this.#host.isLending;
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** Octets accepted by `write` and not framed yet. */
  get bufferedBytes(): number {
    return this.outbox?.bytes ?? 0;
  }

  get isEnding(): boolean {
    return this.#hasLocalEnd;
  }

  get hasTrailers(): boolean {
    return this.#trailers !== undefined;
  }

  /** END_STREAM of the peer has arrived, though not all before it may be delivered. */
  get hasRemoteEnd(): boolean {
    return this.#hasRemoteEnd;
  }

  /** What came with it. */
  get remoteTrailers(): HeaderValues | undefined {
    return this.#remoteTrailers;
  }

  /** The peer has ended its half, and wants the stream to go on elsewhere: ours is to end with trailers. */
  get isAskedToSuspend(): boolean {
    return this.#isAskedToSuspend;
  }

  /** Our half has ended and that of the peer has not, so it can be asked the same. */
  get canAskToSuspend(): boolean {
    return this.#isLocalEndSent && this.isReceiving && this.#host.canSuspend;
  }

  /** Nothing when it cannot be. */
  askToSuspend(): void {
    if (this.canAskToSuspend) this.#host.askToSuspend(this);
  }

  /** Octets that have arrived and wait for a paused receiver. */
  get inboxBytes(): number {
    return this.#inbox?.bytes ?? 0;
  }

  /** The peer may still send on this stream. */
  get isReceiving(): boolean {
    return this.#wire === 'open' && !this.#hasRemoteEnd;
  }

  /** HEADERS of ours went out, so DATA may follow. */
  get isSending(): boolean {
    return this.#canSend && this.#wire === 'open';
  }

  /** The final answer was received (client) or sent (server). */
  get isAnswered(): boolean {
    return this.#isClient ? this.#hasResponse : this.#canSend;
  }

  /** Server: answers the request. With `endStream` the stream is over: the peer is told to stop sending too. */
  respond(status: number, headers: OutgoingHeaders = {}, { endStream = false } = {}): void {
    if (this.#wire !== 'open' || this.#canSend) return;
    this.#host.sendResponse(this, status, headers, endStream);
    this.#canSend = true;
    if (!endStream) return this.#flushOutbox();
    this.#hasLocalEnd = true;
    this.#isLocalEndSent = true;
    // RFC 9113 §8.1: a complete answer before the end of the request is followed by RST_STREAM(NO_ERROR).
    if (!this.#hasRemoteEnd) this.#leave(H2.noError);
    else this.#release();
    this.#close(undefined);
  }

  /** Ends the stream now with this code; `onClose` follows without an error. */
  reset(code: number): void {
    this.#leave(code);
    this.#close(undefined);
  }

  open(handlers: ByteStreamHandlers): void {
    this.#handlers = handlers;
    this.onAborted = undefined;
    this.#responseHead = undefined;
    this.#response = undefined;
    if (this.#isClosed) {
      handlers.onClose(this.#closeError);
      return;
    }
    this.#drainInbox();
  }

  write(chunk: Uint8Array, isLent = false): boolean {
    if (this.#hasLocalEnd || this.#isClosed) return true;
    if (this.#isBrokenPipe) {
      this.#endInPipe();
      return true;
    }
    let rest = chunk;
    if (this.#canSend && this.bufferedBytes === 0) {
      const sent = this.#host.sendNow(this, chunk);
      if (sent === chunk.length) return this.#host.mayGoOn(this, sent);
      if (sent > 0) rest = chunk.subarray(sent);
    }
    if (rest.length === 0) return true;
    this.outbox ??= new ChunkQueue();
    this.outbox.push(rest, isLent);
    return this.#host.queued(this, rest.length);
  }

  /** With `trailers`, they carry END_STREAM. On a CONNECT they are ours alone: RFC 9113 §8.5 knows DATA only. */
  end(trailers?: OutgoingHeaders): void {
    if (this.#hasLocalEnd || this.#isClosed) return;
    if (this.#isBrokenPipe) {
      this.#endInPipe();
      return;
    }
    this.#hasLocalEnd = true;
    this.#trailers = trailers;
    if (this.#canSend && this.bufferedBytes === 0) this.#sendEnd();
  }

  pause(): void {
    this.#isPaused = true;
  }

  resume(): void {
    if (!this.#isPaused) return;
    this.#isPaused = false;
    this.#drainInbox();
  }

  destroy(error?: MeshError): void {
    if (this.#isClosed) return;
    this.#leave(resetCodeOf(error));
    this.#close(error);
  }

  /** @internal Session: the stream is on the wire under `id`. */
  started(id: number): void {
    this.id = id;
    this.#wire = 'open';
  }

  /** @internal Session: the request HEADERS went out. */
  requested(): void {
    this.#canSend = true;
    this.#flushOutbox();
  }

  /** @internal Session: the final answer arrived. */
  receiveResponse(head: ResponseHead): void {
    this.#hasResponse = true;
    this.#responseHead = head;
    this.#response?.resolve(head);
  }

  /** @internal Session: payload, already counted against both windows. */
  receive(chunk: Uint8Array): void {
    if (this.#isClosed) {
      this.#host.credit(this, chunk.length, false);
    } else if (this.#handlers === undefined || this.#isPaused || this.#inbox !== undefined) {
      this.#inbox ??= new ChunkQueue();
      this.#inbox.push(chunk, this.#host.isLending);
      this.#host.parked(chunk.length);
    } else {
      this.#deliver(this.#handlers, chunk);
      this.#host.credit(this, chunk.length, false);
    }
  }

  /** All that waits for a paused receiver, taken out of the stream: nothing else may be under way on it. */
  takeInbox(): Uint8Array {
    const taken = new Uint8Array(this.inboxBytes);
    this.#inbox?.copyTo(taken, 0, taken.length);
    this.#inbox = undefined;
    if (taken.length > 0) this.#host.credit(this, taken.length, true);
    return taken;
  }

  /** @internal Session: END_STREAM. */
  receiveEnd(trailers?: HeaderValues): void {
    this.#hasRemoteEnd = true;
    if (this.#isLocalEndSent) this.#release();
    this.#remoteTrailers = trailers;
    this.#tellWatcher('remoteEnded');
    this.#tellEnd();
  }

  /** @internal Session: `FRAME.suspend`. False: it is out of place. */
  receiveSuspend(): boolean {
    if (!this.#hasRemoteEnd || this.#isAskedToSuspend) return false;
    this.#isAskedToSuspend = true;
    this.#tellWatcher('suspendAsked');
    return true;
  }

  /** @internal Session: RST_STREAM of the peer; the session has forgotten the stream already. */
  receiveReset(code: number): void {
    this.#wire = 'gone';
    if (!isOrderlyReset(code) || !this.isAnswered) {
      this.#close(resetError(code, this.#isClient && !this.isAnswered));
      return;
    }
    const hadUnsent = this.#dropOutbox() > 0;
    this.#isBrokenPipe = true;
    this.#hasRemoteEnd = true;
    if (hadUnsent || this.#hasLocalEnd) this.#endInPipe();
    this.#tellEnd();
  }

  /** @internal Session: it ended, or this stream did not reach the peer. */
  fail(error: MeshError): void {
    this.#wire = 'gone';
    this.#close(error);
  }

  /** @internal Sender: below the low-water mark, or the last octet was framed. */
  flushed(): void {
    if (this.#isClosed) return;
    if (this.#hasLocalEnd && this.bufferedBytes === 0) {
      if (this.hasTrailers && !this.#isLocalEndSent) this.#sendEnd();
      else this.#localEndSent();
    } else if (this.isBlocked) {
      this.isBlocked = false;
      this.#tell('onDrain');
    }
  }

  #flushOutbox(): void {
    if (this.bufferedBytes > 0) this.#host.queued(this, 0);
    else if (this.#hasLocalEnd) this.#sendEnd();
  }

  #sendEnd(): void {
    this.#host.sendEnd(this, this.#trailers);
    this.#localEndSent();
  }

  #tellWatcher(what: 'remoteEnded' | 'suspendAsked'): void {
    try {
      this.endWatcher?.[what]();
    } catch (caught) {
      this.destroy(toMeshError(caught));
    }
  }

  #localEndSent(): void {
    if (this.#isLocalEndSent) return;
    this.#isLocalEndSent = true;
    if (this.#hasRemoteEnd) this.#release();
    this.#closeIfDone();
  }

  #drainInbox(): void {
    while (this.#inbox !== undefined && this.#handlers !== undefined && !this.#isPaused && !this.#isClosed) {
      const chunk = this.#inbox.shift();
      if (chunk === undefined) {
        this.#inbox = undefined;
      } else {
        this.#deliver(this.#handlers, chunk);
        this.#host.credit(this, chunk.length, true);
      }
    }
    this.#tellEnd();
  }

  /** What we say is lost from now on; what has come is delivered all the same, as from a TCP socket whose peer is gone. */
  #endInPipe(): void {
    this.#hasLocalEnd = true;
    this.#isLocalEndSent = true;
    this.#closeIfDone();
  }

  /** A receiver that throws is our bug: it ends this stream, not the session, let alone the process. */
  #deliver(handlers: ByteStreamHandlers, chunk: Uint8Array): void {
    try {
      handlers.onData(chunk);
    } catch (caught) {
      this.destroy(toMeshError(caught));
    }
  }

  #tell(what: 'onDrain' | 'onEnd'): void {
    try {
      this.#handlers?.[what]();
    } catch (caught) {
      this.destroy(toMeshError(caught));
    }
  }

  #tellEnd(): void {
    const isDue = this.#hasRemoteEnd && !this.#isRemoteEndTold && this.#inbox === undefined;
    if (!isDue || this.#handlers === undefined || this.#isClosed) return;
    this.#isRemoteEndTold = true;
    this.#tell('onEnd');
    this.#closeIfDone();
  }

  #closeIfDone(): void {
    if (this.#isLocalEndSent && this.#isRemoteEndTold) this.#close(undefined);
  }

  #release(): void {
    if (this.#wire !== 'open') return;
    this.#wire = 'gone';
    this.#host.release(this);
  }

  #leave(code: number): void {
    if (this.#wire === 'gone') return;
    this.#wire = 'gone';
    this.#host.reset(this, code);
  }

  #close(error: MeshError | undefined): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#closeError = error;
    this.#dropOutbox();
    const parked = this.#inbox?.bytes ?? 0;
    this.#inbox?.clear();
    this.#inbox = undefined;
    if (parked > 0) this.#host.credit(this, parked, true);
    if (!this.#hasResponse) this.#response?.reject(error ?? unansweredError());
    const aborted = this.onAborted;
    this.onAborted = undefined;
    if (this.#handlers !== undefined) this.#handlers.onClose(error);
    else aborted?.();
  }

  #dropOutbox(): number {
    const bytes = this.bufferedBytes;
    this.outbox?.clear();
    this.outbox = undefined;
    if (bytes > 0) this.#host.dropped(this, bytes);
    return bytes;
  }
}
