/** Flow-controlled sending of one session: connection window, fair turns among streams, DATA frames into the output. */
import type { Duplex } from 'node:stream';
import { DEFAULT_MAX_FRAME_BYTES, DEFAULT_WINDOW_BYTES, FRAME_HEADER_BYTES } from '../wire/h2-protocol.ts';
import { writeDataHeader } from '../wire/h2-write.ts';
import type { ChunkQueue } from './h2-chunks.ts';
import { H2Output, type OutputSource } from './h2-output.ts';
import { H2Turns } from './h2-turns.ts';
import type { LoopShare } from './loop-share.ts';

/** What one stream may send before the next has its turn: one TLS record with its frame header. */
const TURN_BYTES = 16 * 1024 - FRAME_HEADER_BYTES;
/** A frame is not cut smaller than this only because a page is nearly full. */
const MIN_CUT_BYTES = 1024;
/** Queued by all streams of a session: beyond it each stream may only queue `CROWDED_STREAM_BYTES`. */
const CROWDED_SESSION_BYTES = 4 * 1024 * 1024;
const CROWDED_STREAM_BYTES = 16 * 1024;
/** High-water mark of one stream; a blocked writer is told to go on at half of it. */
const STREAM_HIGH_WATER_BYTES = 64 * 1024;
/** A writer of such chunks is stopped before the page is full: what does not fit would be copied twice. */
const BULK_BYTES = 16 * 1024;

/** A stream as the sender sees it. */
export interface SendingStream {
  readonly id: number;
  window: number;
  readonly outbox: ChunkQueue | undefined;
  /** END_STREAM goes with the last octet of the outbox. */
  readonly hasEnded: boolean;
  /** No, it goes with what is sent after it. */
  readonly hasTrailers: boolean;
  isBlocked: boolean;
  /** It waits for its turn, between these two. Changed by `H2Turns` only. */
  isReady: boolean;
  turnBefore: SendingStream | undefined;
  turnAfter: SendingStream | undefined;
  /** The writer may go on, or the end of the outbox was framed. */
  flushed(): void;
}

export class H2Sender implements OutputSource {
  readonly output: H2Output;
  readonly #share: LoopShare | undefined;
  maxFrameBytes = DEFAULT_MAX_FRAME_BYTES;
  /** DATA frames sent: each explains a few WINDOW_UPDATE frames of the peer. */
  dataFrames = 0;
  #window = DEFAULT_WINDOW_BYTES;
  #queuedBytes = 0;
  /** Streams with queued octets and an open window, next turn first. */
  readonly #ready = new H2Turns();
  /** Streams to tell about it when the page is on its way. */
  #told: SendingStream[] = [];

  constructor(socket: Duplex, share?: LoopShare) {
    this.output = new H2Output(socket, this, share);
    this.#share = share;
  }

  get window(): number {
    return this.#window;
  }

  openWindow(increment: number): void {
    this.#window += increment;
    if (this.#ready.first !== undefined) this.output.schedule();
  }

  /** Frames what may go out now and returns how many octets of `chunk` that was. Never overtakes a waiting stream. */
  sendNow(stream: SendingStream, chunk: Uint8Array): number {
    if (this.#ready.first !== undefined) return 0;
    let sent = 0;
    while (sent < chunk.length) {
      const bytes = this.#frameBytes(stream, chunk.length - sent, this.maxFrameBytes);
      if (bytes === 0) break;
      const page = this.output.dataPage();
      const at = writeDataHeader(page.bytes, page.filled, stream.id, bytes, false);
      page.bytes.set(bytes === chunk.length ? chunk : chunk.subarray(sent, sent + bytes), at);
      page.filled = at + bytes;
      this.#spend(stream, bytes);
      sent += bytes;
    }
    if (sent > 0) this.output.schedule();
    return sent;
  }

  /** After `sendNow` took all of a chunk of `bytes`. False: the writer should wait for `flushed`, the page is full. */
  mayGoOn(stream: SendingStream, bytes: number): boolean {
    if (stream.isBlocked) return false;
    if (bytes < BULK_BYTES || !this.output.isBusy || this.output.room >= BULK_BYTES) return true;
    stream.isBlocked = true;
    this.#told.push(stream);
    return false;
  }

  /** `bytes` went into the outbox of `stream`. False: it should wait for `flushed`. */
  queued(stream: SendingStream, bytes: number, maySend: boolean): boolean {
    this.#hold(bytes);
    if (maySend) this.makeReady(stream);
    const queued = stream.outbox?.bytes ?? 0;
    const isCrowded =
      (this.#queuedBytes >= CROWDED_SESSION_BYTES || this.#share?.isCrowded === true) && queued >= CROWDED_STREAM_BYTES;
    stream.isBlocked ||= queued >= STREAM_HIGH_WATER_BYTES || isCrowded;
    return !stream.isBlocked;
  }

  /** The outbox of `stream` was dropped, and its turn with it: while the connection window is closed none comes. */
  dropped(stream: SendingStream, bytes: number): void {
    this.#hold(-bytes);
    this.#ready.remove(stream);
  }

  makeReady(stream: SendingStream): void {
    if (stream.isReady || stream.window <= 0 || (stream.outbox?.bytes ?? 0) === 0) return;
    this.#ready.add(stream);
    this.output.schedule();
  }

  fill(): void {
    for (let stream = this.#ready.first; stream !== undefined; stream = this.#ready.first) {
      const bytes = this.#turnBytes(stream);
      if (bytes === undefined) return;
      this.#ready.remove(stream);
      if (bytes > 0) this.#takeTurn(stream, bytes);
    }
  }

  /** After the socket has its octets, so that a writer woken here never meets a half-filled page. */
  flushed(): void {
    if (this.#told.length === 0) return;
    const told = this.#told;
    this.#told = [];
    for (const stream of told) stream.flushed();
  }

  /** 0: nothing to send any more. `undefined`: no room or no connection window, and the stream keeps its turn. */
  #turnBytes(stream: SendingStream): number | undefined {
    const queued = stream.outbox?.bytes ?? 0;
    if (queued === 0 || stream.window <= 0) return 0;
    const bytes = this.#frameBytes(stream, queued, Math.min(TURN_BYTES, this.maxFrameBytes));
    return bytes === 0 ? undefined : bytes;
  }

  #takeTurn(stream: SendingStream, bytes: number): void {
    const outbox = stream.outbox;
    if (outbox === undefined) return;
    const isLast = stream.hasEnded && bytes === outbox.bytes;
    const page = this.output.dataPage();
    const at = writeDataHeader(page.bytes, page.filled, stream.id, bytes, isLast && !stream.hasTrailers);
    outbox.copyTo(page.bytes, at, bytes);
    page.filled = at + bytes;
    this.#hold(-bytes);
    this.#spend(stream, bytes);
    this.makeReady(stream);
    if (isLast || (stream.isBlocked && outbox.bytes <= STREAM_HIGH_WATER_BYTES / 2)) this.#told.push(stream);
  }

  /** Payload of the next frame: 0 when windows or the page do not allow one. */
  #frameBytes(stream: SendingStream, wanted: number, most: number): number {
    const room = this.output.room - FRAME_HEADER_BYTES;
    if (room < Math.min(wanted, MIN_CUT_BYTES)) return 0;
    return Math.max(0, Math.min(wanted, most, room, stream.window, this.#window));
  }

  #hold(bytes: number): void {
    this.#queuedBytes += bytes;
    if (this.#share !== undefined) this.#share.bufferedBytes += bytes;
  }

  #spend(stream: SendingStream, bytes: number): void {
    stream.window -= bytes;
    this.#window -= bytes;
    this.dataFrames += 1;
  }
}
