/** A resumable stream as it is in one tunnel: what was said and heard there, and how it leaves. */
import type { MeshError } from '../base/errors.ts';
import { readSuspended, suspendedTrailers } from '../wire/resume.ts';
import type { ByteStreamHandlers } from './byte-stream.ts';
import type { EndWatcher, H2Stream } from './h2-stream.ts';

export interface LegOwner {
  received(chunk: Uint8Array): void;
  legDrained(leg: Leg): void;
  /** `hasSaidLast` from now on. */
  lastSaid(leg: Leg): void;
  /** On the wire; not all of what the peer sent may be delivered. */
  peerEnded(leg: Leg): void;
  /** The peer, whose half has ended, leaves. */
  suspendAsked(leg: Leg): void;
  /** All that the peer sent in that tunnel, and its end. */
  delivered(leg: Leg): void;
  legClosed(leg: Leg, error: MeshError | undefined): void;
}

export class Leg implements ByteStreamHandlers, EndWatcher {
  readonly stream: H2Stream;
  readonly #owner: LegOwner;
  #sentBytes = 0;
  #receivedBytes = 0;
  #isLeaving = false;
  #hasEnded = false;
  #hasSaidLast = false;
  isDelivered = false;
  isClosed = false;

  constructor(owner: LegOwner, stream: H2Stream) {
    this.#owner = owner;
    this.stream = stream;
    stream.endWatcher = this;
  }

  /** Nothing more is said in it. */
  get isLeaving(): boolean {
    return this.#isLeaving;
  }

  /** Our half has ended in it, for good. */
  get hasEnded(): boolean {
    return this.#hasEnded;
  }

  /** Our last word in it was framed. */
  get hasSaidLast(): boolean {
    return this.#hasSaidLast;
  }

  /** In order: nothing of either end was lost in it. */
  get isOver(): boolean {
    return this.isDelivered && this.#hasSaidLast;
  }

  /** When our half has ended, only an end of the peer can still say that the stream goes on. */
  get canLeave(): boolean {
    return !this.#hasEnded || (!this.stream.hasRemoteEnd && (this.#isLeaving || this.stream.canAskToSuspend));
  }

  /** The peer has left: what it says it has sent. */
  get claimedBytes(): number | undefined {
    return readSuspended(this.stream.remoteTrailers);
  }

  /** HTTP/2 loses nothing; a peer that counts otherwise than we do must not be believed. */
  get miscount(): string | undefined {
    const claimed = this.claimedBytes;
    const bytes = this.#receivedBytes + this.stream.inboxBytes;
    if (claimed === undefined || claimed === bytes) return undefined;
    return `the peer suspended the stream after ${claimed} bytes, of which ${bytes} arrived`;
  }

  send(chunk: Uint8Array, isLent: boolean): boolean {
    this.#sentBytes += chunk.length;
    return this.stream.write(chunk, isLent);
  }

  end(): void {
    this.#hasEnded = true;
    this.stream.end();
  }

  /** With the last we say in this tunnel; when that is said, by asking the peer to do it. */
  leave(): void {
    if (this.#isLeaving) return;
    this.#isLeaving = true;
    if (this.#hasEnded) this.stream.askToSuspend();
    else this.stream.end(suspendedTrailers(this.#sentBytes));
  }

  localEnded(): void {
    this.#hasSaidLast = true;
    this.#owner.lastSaid(this);
  }

  remoteEnded(): void {
    this.#owner.peerEnded(this);
  }

  suspendAsked(): void {
    this.#owner.suspendAsked(this);
  }

  onData(chunk: Uint8Array): void {
    this.#receivedBytes += chunk.length;
    this.#owner.received(chunk);
  }

  onEnd(): void {
    this.#owner.delivered(this);
  }

  onDrain(): void {
    this.#owner.legDrained(this);
  }

  onClose(error: MeshError | undefined): void {
    this.#owner.legClosed(this, error);
  }
}
