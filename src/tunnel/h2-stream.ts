/**
 * One CONNECT stream of an HBONE session as a `ByteStream` (RFC 9113 §5.1, §8.5): its two halves, and what they mean for each other,
 * for the wire and for whoever has the stream.
 */
import { MeshError, toMeshError } from '../base/errors.ts';
import type { HeaderValues, ResponseHead } from '../wire/h2-head.ts';
import { H2 } from '../wire/h2-protocol.ts';
import type { ByteStream, ByteStreamHandlers } from './byte-stream.ts';
import { H2Answer } from './h2-answer.ts';
import { H2ReceiveHalf, type ReceiveHalfOwner } from './h2-receive-half.ts';
import { H2SendHalf, type SendHalfOwner } from './h2-send-half.ts';
import { isOrderlyReset, resetCodeOf, resetError } from './h2-stream-errors.ts';
import type { OutgoingHeaders, StreamHost } from './h2-stream-host.ts';

export interface StreamOptions {
  readonly isClient: boolean;
  readonly sendWindow: number;
  readonly receiveWindow: number;
}

/** Of its halves on the wire; what is delivered may be behind. */
export interface EndWatcher {
  /** END_STREAM of ours was framed. */
  localEnded(): void;
  /** The peer has ended its half, and not all that it sent may be delivered. */
  remoteEnded(): void;
  /** After that: it wants the stream to go on elsewhere. */
  suspendAsked(): void;
}

/** How far the wire has come; the application may be behind. */
type WireState = 'waiting' | 'open' | 'gone';

export class H2Stream implements ByteStream, SendHalfOwner, ReceiveHalfOwner {
  /** 0 while a request waits for a slot. */
  id = 0;
  /** @internal Its place in the `H2RequestQueue`. */
  place = 0;
  /** @internal Session only, as is the other one. */
  readonly sending: H2SendHalf;
  readonly receiving: H2ReceiveHalf;
  /** Called when the stream ends before `open`: the owner should stop working on it. */
  onAborted: (() => void) | undefined;
  endWatcher: EndWatcher | undefined;
  readonly #host: StreamHost;
  /** Client only. */
  readonly #answer: H2Answer | undefined;
  #handlers: ByteStreamHandlers | undefined;
  #wire: WireState;
  #isAskedToSuspend = false;
  #isClosed = false;
  #closeError: MeshError | undefined;

  constructor(host: StreamHost, { isClient, sendWindow, receiveWindow }: StreamOptions) {
    this.#host = host;
    this.sending = new H2SendHalf(host, this, sendWindow);
    this.receiving = new H2ReceiveHalf(host, this, receiveWindow);
    this.#answer = isClient ? new H2Answer() : undefined;
    this.#wire = 'waiting';
  }

  /** Client: the answer to the request. Rejects when the stream or the session ends before it. Not kept after `open`. */
  get response(): Promise<ResponseHead> {
    return this.#answer?.promise ?? Promise.reject(new MeshError('CV-BUG', 'who answers a stream gets no answer'));
  }

  /** Payload is given on as views of what the session read. */
  get isLending(): boolean {
    return this.#host.isLending;
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  get bufferedBytes(): number {
    return this.sending.bufferedBytes;
  }

  get isEnding(): boolean {
    return this.sending.hasEnded && !this.sending.isEndSent;
  }

  /** END_STREAM of the peer has arrived, though not all before it may be delivered. */
  get hasRemoteEnd(): boolean {
    return this.receiving.hasEnded;
  }

  /** What came with it. */
  get remoteTrailers(): HeaderValues | undefined {
    return this.receiving.trailers;
  }

  /** The peer has ended its half, and wants the stream to go on elsewhere: ours is to end with trailers. */
  get isAskedToSuspend(): boolean {
    return this.#isAskedToSuspend;
  }

  /** Our half has ended and that of the peer has not, so it can be asked the same. */
  get canAskToSuspend(): boolean {
    return this.sending.isEndSent && this.receiving.isOpen && this.#host.canSuspend;
  }

  /** Nothing when it cannot be. */
  askToSuspend(): void {
    if (this.canAskToSuspend) this.#host.askToSuspend(this);
  }

  /** Octets that have arrived and wait for a paused receiver. */
  get inboxBytes(): number {
    return this.receiving.keptBytes;
  }

  /** The final answer was received (client) or sent (server). */
  get isAnswered(): boolean {
    return this.#answer?.isThere ?? this.sending.isOpen;
  }

  /** Server: answers the request. With `endStream` the stream is over: the peer is told to stop sending too. */
  respond(status: number, headers: OutgoingHeaders = {}, { endStream = false } = {}): void {
    if (this.#wire !== 'open' || this.sending.isOpen) return;
    this.#host.sendResponse(this, status, headers, endStream);
    this.sending.opened(endStream);
    if (!endStream) return;
    // RFC 9113 §8.1: a complete answer before the end of the request is followed by RST_STREAM(NO_ERROR).
    if (!this.hasRemoteEnd) this.#leave(H2.noError);
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
    this.#answer?.forget();
    if (this.#isClosed) handlers.onClose(this.#closeError);
    else this.receiving.deliverTo(handlers);
  }

  write(chunk: Uint8Array, isLent = false): boolean {
    return this.sending.write(chunk, isLent);
  }

  /** With `trailers`, they carry END_STREAM. On a CONNECT they are ours alone: RFC 9113 §8.5 knows DATA only. */
  end(trailers?: OutgoingHeaders): void {
    this.sending.end(trailers);
  }

  pause(): void {
    this.receiving.pause();
  }

  resume(): void {
    this.receiving.resume();
  }

  destroy(error?: MeshError): void {
    if (this.#isClosed) return;
    this.#leave(resetCodeOf(error));
    this.#close(error);
  }

  /** All that waits for a paused receiver, taken out of the stream: nothing else may be under way on it. */
  takeInbox(): Uint8Array {
    return this.receiving.take();
  }

  /** @internal Session: the stream is on the wire under `id`. */
  started(id: number): void {
    this.id = id;
    this.sending.id = id;
    this.receiving.id = id;
    this.#wire = 'open';
    this.receiving.opened();
  }

  /** @internal Session: the request HEADERS went out. */
  requested(): void {
    this.sending.opened(false);
  }

  /** @internal Session: the final answer arrived. */
  receiveResponse(head: ResponseHead): void {
    this.#answer?.arrived(head);
  }

  /** @internal Session: END_STREAM. */
  receiveEnd(trailers?: HeaderValues): void {
    this.receiving.end(trailers);
    if (this.sending.isEndSent) this.#release();
    this.#tellWatcher('remoteEnded');
    this.receiving.tellEnd();
  }

  /** @internal Session: `FRAME.suspend`. False: it is out of place. */
  receiveSuspend(): boolean {
    if (!this.hasRemoteEnd || this.#isAskedToSuspend) return false;
    this.#isAskedToSuspend = true;
    this.#tellWatcher('suspendAsked');
    return true;
  }

  /** @internal Session: RST_STREAM of the peer; the session has forgotten the stream already. */
  receiveReset(code: number): void {
    this.#gone();
    if (!isOrderlyReset(code) || !this.isAnswered) {
      this.#close(resetError(code, this.#answer?.isThere === false));
      return;
    }
    if (!this.hasRemoteEnd) this.receiving.end(undefined);
    this.sending.breakPipe();
    this.receiving.tellEnd();
  }

  /** @internal Session: it ended, or this stream did not reach the peer. */
  fail(error: MeshError): void {
    this.#gone();
    this.#close(error);
  }

  /** @internal Its half only, as are the next two. */
  drained(): void {
    try {
      this.#handlers?.onDrain();
    } catch (caught) {
      this.destroy(toMeshError(caught));
    }
  }

  sendEnded(): void {
    if (this.hasRemoteEnd) this.#release();
    this.#tellWatcher('localEnded');
    this.#closeIfDone();
  }

  receiveEnded(): void {
    this.#closeIfDone();
  }

  #tellWatcher(what: keyof EndWatcher): void {
    try {
      this.endWatcher?.[what]();
    } catch (caught) {
      this.destroy(toMeshError(caught));
    }
  }

  #closeIfDone(): void {
    if (this.sending.isEndSent && this.receiving.isEndTold) this.#close(undefined);
  }

  #release(): void {
    if (this.#wire !== 'open') return;
    this.#gone();
    this.#host.release(this);
  }

  #leave(code: number): void {
    if (this.#wire === 'gone') return;
    this.#gone();
    this.#host.reset(this, code);
  }

  #gone(): void {
    this.#wire = 'gone';
    this.receiving.gone();
  }

  #close(error: MeshError | undefined): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#closeError = error;
    this.sending.close();
    this.receiving.close();
    this.#answer?.fail(error);
    const aborted = this.onAborted;
    this.onAborted = undefined;
    if (this.#handlers !== undefined) this.#handlers.onClose(error);
    else aborted?.();
  }
}
