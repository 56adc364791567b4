/** One header block from its HEADERS and CONTINUATION frames (RFC 9113 §4.3, §6.10), bounded in octets and in frames. */
import { connectionError, FRAME, H2 } from './h2-protocol.ts';

const NO_BYTES = new Uint8Array(0);

export interface HeaderBlockLimits {
  /** Bound of one compressed header block, all its frames together. */
  readonly maxHeaderBlockBytes: number;
  /** Bound of HEADERS plus CONTINUATION frames of one block: empty ones cost us work too. */
  readonly maxHeaderFrames: number;
}

export class HeaderBlock {
  readonly #limits: HeaderBlockLimits;
  #bytes: Uint8Array = NO_BYTES;
  #frames = 0;
  /** Stream of the unfinished block; 0 when there is none. */
  streamId = 0;
  endsStream = false;
  isSelfDependent = false;

  constructor(limits: HeaderBlockLimits) {
    this.#limits = limits;
  }

  /** Called with the head of every frame: while a block is unfinished nothing but its continuation may come. */
  checkNext(type: number, streamId: number): void {
    const isContinuation = type === FRAME.continuation;
    if (this.streamId !== 0 && (!isContinuation || streamId !== this.streamId)) {
      throw connectionError(H2.protocolError, 'a header block was interrupted by another frame');
    }
    if (this.streamId === 0 && isContinuation) throw connectionError(H2.protocolError, 'CONTINUATION without HEADERS');
  }

  /** Called before `length` octets of HEADERS or CONTINUATION are read. */
  checkLength(length: number): void {
    this.#frames += 1;
    const isTooMuch = this.#bytes.length + length > this.#limits.maxHeaderBlockBytes;
    if (isTooMuch || this.#frames > this.#limits.maxHeaderFrames) {
      throw connectionError(H2.enhanceYourCalm, 'header block over the limit');
    }
  }

  /** One fragment, copied unless it is the whole block. */
  append(fragment: Uint8Array, isEnd: boolean): void {
    if (isEnd && this.#bytes.length === 0) {
      this.#bytes = fragment;
      return;
    }
    const joined = new Uint8Array(this.#bytes.length + fragment.length);
    joined.set(this.#bytes);
    joined.set(fragment, this.#bytes.length);
    this.#bytes = joined;
  }

  /** The block, which is complete; the next one starts afresh. */
  take(): Uint8Array {
    const bytes = this.#bytes;
    this.clear();
    return bytes;
  }

  clear(): void {
    this.#bytes = NO_BYTES;
    this.#frames = 0;
    this.streamId = 0;
  }
}
