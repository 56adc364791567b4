/** Incremental HTTP/2 frame parser (RFC 9113 §4, §6) for one direction of a session: octets in any cut, calls on a sink. */
import { HeaderBlock, type HeaderBlockLimits } from './h2-header-block.ts';
import { byteAt, checkControlFrame, PRIORITY_BYTES, readHeadersPayload, readSettings, uint32At } from './h2-payload.ts';
import {
  connectionError,
  FLAG,
  FRAME,
  FRAME_HEADER_BYTES,
  H2,
  type H2Code,
  MAX_31_BITS,
  PREFACE,
} from './h2-protocol.ts';

/** What the parser finds, in wire order. Calls are synchronous; a throw from one ends the parser. */
export interface H2FrameSink {
  /** A DATA frame began. `flowBytes` is its whole length, padding included: what flow control counts. */
  onDataStart(streamId: number, flowBytes: number): void;
  /** Part of the payload of the DATA frame that began last: a view of the chunk that was pushed. Never empty. */
  onDataChunk(chunk: Uint8Array): void;
  /** The DATA frame is complete. `paddingBytes` of its flow bytes were no payload. */
  onDataEnd(paddingBytes: number, isEndStream: boolean): void;
  /** A whole header block, valid during the call. `isSelfDependent`: its priority names its own stream. */
  onHeaders(streamId: number, block: Uint8Array, isEndStream: boolean, isSelfDependent: boolean): void;
  onReset(streamId: number, code: number): void;
  /** Checked values of known settings; later ones win. */
  onSettings(settings: readonly (readonly [id: number, value: number])[]): void;
  onSettingsAck(): void;
  /** `payload`: 8 octets, valid during the call. */
  onPing(payload: Uint8Array, isAck: boolean): void;
  onGoaway(lastStreamId: number, code: number): void;
  onWindowUpdate(streamId: number, increment: number): void;
  onSuspend(streamId: number): void;
  /** PRIORITY and frames of unknown type: no effect, but not free. */
  onIgnored(): void;
  /** A frame that breaks one stream only. */
  onStreamError(streamId: number, code: H2Code, message: string): void;
}

export interface H2ParserOptions extends HeaderBlockLimits {
  /** Expect the client preface first. */
  readonly isServer: boolean;
  /** SETTINGS_MAX_FRAME_SIZE we announced. */
  readonly maxFrameBytes: number;
}

const NO_BYTES = new Uint8Array(0);
/** Less is a system call per frame, whatever is in it. */
const MUCH_DATA_BYTES = 1_024;

export class H2FrameParser {
  readonly #sink: H2FrameSink;
  readonly #options: H2ParserOptions;
  /** Octets of PREFACE still to come. */
  #prefaceLeft: number;
  #isFirstFrame = true;
  #isStopped = false;

  readonly #header = new Uint8Array(FRAME_HEADER_BYTES);
  #headerFilled = 0;

  /** Of the frame being read. `#left` octets of its payload are still to come; -1: no frame. */
  #left = -1;
  #frameBytes = 0;
  #type = 0;
  #flags = 0;
  #streamId = 0;
  #dataPadding = 0;
  /** DATA: the Pad Length octet is still to come. */
  #isPadLengthDue = false;
  #isSkipped = false;
  /** Payload of a control frame that came in pieces. */
  #partial: Uint8Array | undefined;
  #partialFilled = 0;

  readonly #block: HeaderBlock;

  constructor(sink: H2FrameSink, options: H2ParserOptions) {
    this.#sink = sink;
    this.#options = options;
    this.#block = new HeaderBlock(options);
    this.#prefaceLeft = options.isServer ? PREFACE.length : 0;
  }

  /** Makes the running `push` return after the current call on the sink, and later ones do nothing. */
  stop(): void {
    this.#isStopped = true;
    this.#partial = undefined;
    this.#block.clear();
  }

  /**
   * Consumes `chunk`, and returns how many octets of it: all, unless `isOver` says between two frames that it is enough for now.
   * It is not asked after much DATA, whose octets are what costs. Throws `MeshError` with `fields.h2Code` on a connection error.
   */
  push(chunk: Uint8Array, isOver?: () => boolean): number {
    let at = this.#prefaceLeft > 0 ? this.#readPreface(chunk) : 0;
    while (at < chunk.length && !this.#isStopped) {
      if (this.#left < 0) {
        at = this.#readHeader(chunk, at);
      } else {
        const end = Math.min(chunk.length, at + this.#left);
        this.#left -= end - at;
        this.#readPayload(chunk, at, end);
        at = end;
      }
      if (this.#left < 0 && at < chunk.length && this.#isDear && isOver?.() === true) return at;
    }
    return chunk.length;
  }

  /** The frame that was read last costs more than its octets. */
  get #isDear(): boolean {
    return this.#type !== FRAME.data || this.#frameBytes < MUCH_DATA_BYTES;
  }

  #readPreface(chunk: Uint8Array): number {
    let at = 0;
    while (at < chunk.length && this.#prefaceLeft > 0) {
      if (chunk[at] !== PREFACE[PREFACE.length - this.#prefaceLeft]) {
        throw connectionError(H2.protocolError, 'the client preface is wrong');
      }
      at += 1;
      this.#prefaceLeft -= 1;
    }
    return at;
  }

  #readHeader(chunk: Uint8Array, from: number): number {
    let bytes = chunk;
    let at = from;
    let next = from + FRAME_HEADER_BYTES;
    if (this.#headerFilled > 0 || next > chunk.length) {
      next = Math.min(chunk.length, from + FRAME_HEADER_BYTES - this.#headerFilled);
      this.#header.set(chunk.subarray(from, next), this.#headerFilled);
      this.#headerFilled += next - from;
      if (this.#headerFilled < FRAME_HEADER_BYTES) return next;
      this.#headerFilled = 0;
      bytes = this.#header;
      at = 0;
    }
    this.#left = (byteAt(bytes, at) << 16) | (byteAt(bytes, at + 1) << 8) | byteAt(bytes, at + 2);
    this.#frameBytes = this.#left;
    this.#type = byteAt(bytes, at + 3);
    this.#flags = byteAt(bytes, at + 4);
    this.#streamId = uint32At(bytes, at + 5) & MAX_31_BITS;
    this.#startFrame();
    return next;
  }

  #startFrame(): void {
    if (this.#isFirstFrame) {
      if (this.#type !== FRAME.settings || (this.#flags & FLAG.ack) !== 0) {
        throw connectionError(H2.protocolError, 'the first frame is not SETTINGS');
      }
      this.#isFirstFrame = false;
    }
    if (this.#left > this.#options.maxFrameBytes) {
      throw connectionError(H2.frameSizeError, `frame of ${this.#left} bytes is over the limit`);
    }
    this.#block.checkNext(this.#type, this.#streamId);
    if (this.#type === FRAME.data) this.#startData();
    else this.#startControl();
  }

  #startData(): void {
    if (this.#streamId === 0) throw connectionError(H2.protocolError, 'DATA on stream 0');
    this.#isPadLengthDue = (this.#flags & FLAG.padded) !== 0;
    this.#dataPadding = 0;
    if (this.#isPadLengthDue && this.#left === 0)
      throw connectionError(H2.frameSizeError, 'padded DATA without pad length');
    const flowBytes = this.#left;
    this.#sink.onDataStart(this.#streamId, flowBytes);
    if (flowBytes === 0 && !this.#isStopped) this.#endData();
  }

  #endData(): void {
    this.#left = -1;
    this.#sink.onDataEnd(this.#dataPadding, (this.#flags & FLAG.endStream) !== 0);
  }

  #startControl(): void {
    checkControlFrame(this.#type, this.#flags, this.#streamId, this.#left);
    if (this.#type === FRAME.headers || this.#type === FRAME.continuation) this.#block.checkLength(this.#left);
    const isBadPriority = this.#type === FRAME.priority && this.#left !== PRIORITY_BYTES;
    this.#isSkipped = this.#type > FRAME.continuation || isBadPriority;
    this.#partialFilled = 0;
    if (this.#left === 0) this.#endControl(NO_BYTES);
  }

  #readPayload(chunk: Uint8Array, from: number, to: number): void {
    if (this.#type === FRAME.data) {
      this.#readData(chunk, from, to);
    } else if (this.#isSkipped) {
      if (this.#left === 0) this.#endControl(NO_BYTES);
    } else if (this.#left === 0 && this.#partialFilled === 0) {
      this.#endControl(chunk.subarray(from, to));
    } else {
      this.#keepPartial(chunk, from, to);
    }
  }

  #readData(chunk: Uint8Array, from: number, to: number): void {
    let at = from;
    if (this.#isPadLengthDue) {
      const padding = byteAt(chunk, at);
      const rest = this.#left + (to - at) - 1;
      if (padding > rest) throw connectionError(H2.protocolError, 'padding longer than its DATA frame');
      this.#isPadLengthDue = false;
      this.#dataPadding = padding + 1;
      at += 1;
    }
    // Padding is at the end: what is left after this piece can only shield octets of the piece from being payload.
    const paddingHere = this.#dataPadding > 0 ? Math.max(0, this.#dataPadding - 1 - this.#left) : 0;
    const end = Math.max(at, to - paddingHere);
    if (end > at) this.#sink.onDataChunk(at === 0 && end === chunk.length ? chunk : chunk.subarray(at, end));
    if (this.#left === 0 && !this.#isStopped) this.#endData();
  }

  #keepPartial(chunk: Uint8Array, from: number, to: number): void {
    // A GOAWAY may carry any amount of debug data; only its fixed part is kept.
    const isGoaway = this.#type === FRAME.goaway;
    this.#partial ??= new Uint8Array(isGoaway ? 8 : to - from + this.#left);
    const kept = Math.min(to - from, this.#partial.length - this.#partialFilled);
    this.#partial.set(chunk.subarray(from, from + kept), this.#partialFilled);
    this.#partialFilled += kept;
    if (this.#left > 0) return;
    const payload = this.#partial;
    this.#partial = undefined;
    this.#endControl(payload);
  }

  #endControl(payload: Uint8Array): void {
    this.#left = -1;
    const sink = this.#sink;
    switch (this.#type) {
      case FRAME.headers:
        return this.#onHeaders(payload);
      case FRAME.continuation:
        return this.#appendBlock(payload);
      case FRAME.priority:
        return this.#onPriority(payload);
      case FRAME.rstStream:
        return sink.onReset(this.#streamId, uint32At(payload, 0));
      case FRAME.settings:
        return (this.#flags & FLAG.ack) !== 0 ? sink.onSettingsAck() : sink.onSettings(readSettings(payload));
      case FRAME.ping:
        return sink.onPing(payload, (this.#flags & FLAG.ack) !== 0);
      case FRAME.goaway:
        return sink.onGoaway(uint32At(payload, 0) & MAX_31_BITS, uint32At(payload, 4));
      case FRAME.windowUpdate:
        return this.#onWindowUpdate(uint32At(payload, 0) & MAX_31_BITS);
      case FRAME.suspend:
        return sink.onSuspend(this.#streamId);
    }
    sink.onIgnored();
  }

  #onHeaders(payload: Uint8Array): void {
    const { fragment, isSelfDependent } = readHeadersPayload(this.#flags, this.#streamId, payload);
    this.#block.streamId = this.#streamId;
    this.#block.endsStream = (this.#flags & FLAG.endStream) !== 0;
    this.#block.isSelfDependent = isSelfDependent;
    this.#appendBlock(fragment);
  }

  #appendBlock(fragment: Uint8Array): void {
    const isEnd = (this.#flags & FLAG.endHeaders) !== 0;
    this.#block.append(fragment, isEnd);
    if (!isEnd) return;
    const { endsStream, isSelfDependent } = this.#block;
    this.#sink.onHeaders(this.#streamId, this.#block.take(), endsStream, isSelfDependent);
  }

  #onPriority(payload: Uint8Array): void {
    if (payload.length !== PRIORITY_BYTES) {
      this.#sink.onStreamError(this.#streamId, H2.frameSizeError, 'PRIORITY is not 5 bytes');
    } else if ((uint32At(payload, 0) & MAX_31_BITS) === this.#streamId) {
      this.#sink.onStreamError(this.#streamId, H2.protocolError, 'a stream depends on itself');
    } else {
      this.#sink.onIgnored();
    }
  }

  #onWindowUpdate(increment: number): void {
    if (increment > 0) this.#sink.onWindowUpdate(this.#streamId, increment);
    else if (this.#streamId === 0) throw connectionError(H2.protocolError, 'WINDOW_UPDATE of 0');
    else this.#sink.onStreamError(this.#streamId, H2.protocolError, 'WINDOW_UPDATE of 0');
  }
}
