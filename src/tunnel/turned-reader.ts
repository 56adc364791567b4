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
  /** A chunk is valid during the call only. */
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

  /** Something was read; `chunk` is lent. */
  take(chunk: Uint8Array): void {
    const share = this.#share;
    if (share !== undefined) {
      const { callMs, byteMs } = this.#price;
      const isTurn = share.enterFor(this, callMs + byteMs * chunk.length);
      if (!isTurn && this.#keptBytes + chunk.length <= MAX_KEPT_BYTES) {
        // Not `slice`: of a Buffer that is a view.
        this.#kept ??= [];
        this.#kept.push(new Uint8Array(chunk));
        this.#keptBytes += chunk.length;
        share.bufferedBytes += chunk.length;
        return;
      }
      this.flush();
    }
    this.#receiver.onData(chunk);
  }

  /** Gives on what was kept: nothing may overtake it, the end of the stream least of all. */
  flush(): void {
    const kept = this.#kept;
    if (kept === undefined) return;
    if (this.#share !== undefined) this.#share.bufferedBytes -= this.#keptBytes;
    this.#kept = undefined;
    this.#keptBytes = 0;
    for (const chunk of kept) this.#receiver.onData(chunk);
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
    this.flush();
    if (!this.#isPaused && !this.#isHeld) this.#socket.resume();
  }
}
