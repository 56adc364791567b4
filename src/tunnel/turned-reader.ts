/** Reads one socket in turn with those of other workloads. Keeps two wishes apart: that of the owner to pause, and its turn. */
import type { Duplex } from 'node:stream';
import type { ByteStreamHandlers } from './byte-stream.ts';
import type { LoopShare, TurnSource } from './loop-share.ts';

/** What Node does before it tells of a read, milliseconds; by profile on a 2.5 GHz core. */
export interface ReadPrice {
  readonly callMs: number;
  readonly byteMs: number;
}

/** A system call and the copy out of the kernel. */
export const PLAIN_PRICE: ReadPrice = { callMs: 0.003, byteMs: 0.1e-6 };
/** The same, two copies between BIOs and AES-GCM; a call is one record. */
export const TLS_PRICE: ReadPrice = { callMs: 0.003, byteMs: 0.4e-6 };

/** Read after it was stopped, and kept: one chunk in most cases. More is given on out of turn. */
const MAX_KEPT_BYTES = 64 * 1024;

export interface TurnedReaderParts {
  readonly socket: Duplex;
  readonly price: ReadPrice;
  /** Absent: always its turn. */
  readonly share: LoopShare | undefined;
  /** A chunk is valid during the call only. What is dear to receive asks `isTurnOver` now and then, and gives the rest back. */
  readonly receiver: Pick<ByteStreamHandlers, 'onData'>;
}

export class TurnedReader implements TurnSource {
  turn = -1;
  readonly #socket: Duplex;
  readonly #price: ReadPrice;
  readonly #share: LoopShare | undefined;
  readonly #receiver: TurnedReaderParts['receiver'];
  #kept: Uint8Array[] | undefined;
  #keptBytes = 0;
  /** All that was kept has to go, whoever's turn it is. */
  #isFlushing = false;
  #isHeld = false;
  #isPaused = false;

  constructor({ socket, price, share, receiver }: TurnedReaderParts) {
    this.#socket = socket;
    this.#price = price;
    this.#share = share;
    this.#receiver = receiver;
  }

  get isHeld(): boolean {
    return this.#isHeld;
  }

  /** Read and not given to the receiver yet. */
  get keptBytes(): number {
    return this.#keptBytes;
  }

  /** The receiver should take no more of its chunk in this turn. */
  get isTurnOver(): boolean {
    return !this.#isFlushing && this.#share !== undefined && !this.#share.enterFor(this, 0);
  }

  /** Something was read; `chunk` is lent. */
  take(chunk: Uint8Array): void {
    const share = this.#share;
    if (share === undefined) {
      this.#receiver.onData(chunk);
      return;
    }
    const { callMs, byteMs } = this.#price;
    const isTurn = share.enterFor(this, callMs + byteMs * chunk.length);
    if (isTurn && this.#kept === undefined) {
      this.#receiver.onData(chunk);
    } else if (this.#keptBytes + chunk.length <= MAX_KEPT_BYTES) {
      this.#kept ??= [];
      this.#kept.push(this.#copy(chunk));
    } else {
      this.#flushWith(chunk);
    }
    share.leave();
  }

  /** The end of the chunk that is being received: it comes again, before everything else, in the next turn. */
  putBack(rest: Uint8Array): void {
    this.#kept ??= [];
    this.#kept.unshift(this.#copy(rest));
  }

  /** Gives on what was kept: nothing may overtake it, the end of the stream least of all. */
  flush(): void {
    this.#flushWith(undefined);
  }

  pause(): void {
    this.#isPaused = true;
    if (!this.#isHeld) this.#socket.pause();
  }

  resume(): void {
    this.#isPaused = false;
    if (!this.#isHeld) this.#socket.resume();
  }

  hold(): void {
    this.#isHeld = true;
    if (!this.#isPaused) this.#socket.pause();
  }

  release(): void {
    this.#isHeld = false;
    this.#giveKept();
    if (!this.#isPaused && !this.#isHeld) this.#socket.resume();
  }

  #flushWith(chunk: Uint8Array | undefined): void {
    this.#isFlushing = true;
    this.#giveKept();
    if (chunk !== undefined) this.#receiver.onData(chunk);
    this.#isFlushing = false;
  }

  #copy(chunk: Uint8Array): Uint8Array {
    this.#keptBytes += chunk.length;
    if (this.#share !== undefined) this.#share.bufferedBytes += chunk.length;
    // Not `slice`: of a Buffer that is a view.
    return new Uint8Array(chunk);
  }

  #giveKept(): void {
    while (this.#isFlushing || !this.#isHeld) {
      const chunk = this.#kept?.shift();
      if (chunk === undefined) break;
      this.#keptBytes -= chunk.length;
      if (this.#share !== undefined) this.#share.bufferedBytes -= chunk.length;
      this.#receiver.onData(chunk);
    }
    if (this.#keptBytes === 0) this.#kept = undefined;
  }
}
