/** Frames of the peer, checked against the state of streams and session (RFC 9113 §5, §6, §8). */
import { MeshError, messageOf } from '../base/errors.ts';
import type { H2FrameSink } from '../wire/h2-frame.ts';
import { type RequestHead, readRequest, readResponse, readTrailers } from '../wire/h2-head.ts';
import { connectionError, H2, type H2Code, MAX_31_BITS } from '../wire/h2-protocol.ts';
import { pingFrame, resetFrame, settingsAckFrame } from '../wire/h2-write.ts';
import { HpackDecoder } from '../wire/hpack-decoder.ts';
import type { HeaderField } from '../wire/hpack-table.ts';
import type { H2Core } from './h2-core.ts';
import { applySetting } from './h2-settings.ts';
import type { H2Stream } from './h2-stream.ts';

/** WINDOW_UPDATE frames that one DATA frame of ours explains: a peer may credit stream and connection in small parts. */
const UPDATES_PER_DATA_FRAME = 8;
const DEFAULT_TABLE_BYTES = 4096;

export interface InboundDeps {
  /** False: after the final GOAWAY, so that new streams are refused. */
  acceptsStreams(): boolean;
  onStream(stream: H2Stream, request: RequestHead): void;
  onSettings(): void;
  onSettingsAck(): void;
  /** False: nobody asked for this answer. */
  onPong(payload: Uint8Array): boolean;
  onGoaway(lastStreamId: number, code: number): void;
}

export class H2Inbound implements H2FrameSink {
  readonly #core: H2Core;
  readonly #deps: InboundDeps;
  readonly #decoder: HpackDecoder;
  /** Of the DATA frame being read; `undefined`: its stream is gone, the octets go nowhere. */
  #dataStream: H2Stream | undefined;
  #dataBytes = 0;
  #isAckAwaited = true;
  #explainedFrames = 0;

  constructor(core: H2Core, deps: InboundDeps) {
    this.#core = core;
    this.#deps = deps;
    this.#decoder = new HpackDecoder({ maxListBytes: core.settings.maxHeaderListBytes });
  }

  onDataStart(streamId: number, flowBytes: number): void {
    const core = this.#core;
    core.charge(flowBytes);
    this.#dataBytes = flowBytes;
    this.#dataStream = undefined;
    const stream = core.streams.get(streamId);
    if (stream === undefined) return this.#onLateData(streamId);
    if (!stream.receiving.isOpen) return this.#fault(streamId, H2.streamClosed, 'DATA after END_STREAM');
    if (core.role === 'client' && !stream.isAnswered) {
      return this.#fault(streamId, H2.protocolError, 'DATA before the response');
    }
    stream.receiving.window -= flowBytes;
    if (stream.receiving.window < 0) {
      return this.#fault(streamId, H2.flowControlError, 'the peer overran the stream window');
    }
    this.#dataStream = stream;
  }

  onDataChunk(chunk: Uint8Array): void {
    if (this.#dataStream === undefined) this.#core.creditConnection(chunk.length);
    else this.#dataStream.receiving.receive(chunk);
  }

  onDataEnd(paddingBytes: number, isEndStream: boolean): void {
    const stream = this.#dataStream;
    this.#dataStream = undefined;
    if (paddingBytes === this.#dataBytes && !isEndStream) this.#core.abuse.spend('emptyFrames');
    if (stream === undefined) {
      this.#core.creditConnection(paddingBytes);
    } else {
      if (paddingBytes > 0) this.#core.credit(stream.receiving, paddingBytes, false);
      if (isEndStream && stream.receiving.isOpen) stream.receiveEnd();
    }
  }

  onHeaders(streamId: number, block: Uint8Array, isEndStream: boolean, isSelfDependent: boolean): void {
    // Always decoded, also for streams that are gone: the table is shared by all.
    const fields = this.#decode(block);
    const stream = this.#core.streams.get(streamId);
    if (stream !== undefined) this.#onMoreHeaders(stream, fields, isEndStream);
    else if (this.#core.streams.mayPeerOpen(streamId)) this.#onRequest(streamId, fields, isEndStream, isSelfDependent);
    else if (this.#core.streams.isIdle(streamId))
      throw connectionError(H2.protocolError, 'HEADERS on a wrong stream id');
    else this.#onLateHeaders(streamId);
  }

  onReset(streamId: number, code: number): void {
    const { streams, abuse } = this.#core;
    const stream = streams.get(streamId);
    if (stream === undefined) {
      this.#requireNotIdle(streamId, 'RST_STREAM');
      abuse.spend('uselessFrames');
      return;
    }
    const isFresh = this.#core.role === 'server' && !stream.isAnswered;
    stream.receiveReset(code);
    this.#core.release(stream);
    if (isFresh) abuse.spend('freshResets');
  }

  onSettings(settings: readonly (readonly [id: number, value: number])[]): void {
    const { peer, sender, abuse } = this.#core;
    abuse.spend('settings');
    const windowBefore = peer.initialWindowBytes;
    for (const [id, value] of settings) {
      applySetting(peer, id, value);
      if (peer.headerTableBytes < DEFAULT_TABLE_BYTES) this.#core.tableUpdateDue();
    }
    sender.maxFrameBytes = peer.maxFrameBytes;
    this.#core.control(settingsAckFrame());
    this.#shiftWindows(peer.initialWindowBytes - windowBefore);
    this.#deps.onSettings();
  }

  onSettingsAck(): void {
    if (!this.#isAckAwaited) return this.#core.abuse.spend('uselessFrames');
    this.#isAckAwaited = false;
    this.#deps.onSettingsAck();
  }

  onPing(payload: Uint8Array, isAck: boolean): void {
    if (isAck) {
      if (!this.#deps.onPong(payload)) this.#core.abuse.spend('uselessFrames');
      return;
    }
    this.#core.abuse.spend('pings');
    this.#core.control(pingFrame(payload, true));
  }

  onGoaway(lastStreamId: number, code: number): void {
    this.#core.abuse.spend('uselessFrames');
    this.#deps.onGoaway(lastStreamId, code);
  }

  onWindowUpdate(streamId: number, increment: number): void {
    const { sender, streams } = this.#core;
    this.#spendWindowUpdate();
    if (streamId === 0) {
      if (sender.window + increment > MAX_31_BITS)
        throw connectionError(H2.flowControlError, 'connection window over 2^31-1');
      sender.openWindow(increment);
      return;
    }
    const stream = streams.get(streamId);
    if (stream === undefined) return this.#requireNotIdle(streamId, 'WINDOW_UPDATE');
    const { sending } = stream;
    if (sending.window + increment > MAX_31_BITS) {
      return this.#fault(streamId, H2.flowControlError, 'stream window over 2^31-1');
    }
    sending.window += increment;
    if (sending.isOpen) sender.makeReady(sending);
  }

  onSuspend(streamId: number): void {
    if (this.#core.streams.get(streamId)?.receiveSuspend() !== true) this.onIgnored();
  }

  onIgnored(): void {
    this.#core.abuse.spend('uselessFrames');
  }

  onStreamError(streamId: number, code: H2Code, message: string): void {
    if (this.#core.streams.get(streamId) !== undefined) return this.#fault(streamId, code, message);
    if (code === H2.protocolError && this.#core.streams.isIdle(streamId)) throw connectionError(code, message);
    this.#refuse(streamId, code);
  }

  #decode(block: Uint8Array): HeaderField[] {
    try {
      return this.#decoder.decode(block);
    } catch (caught) {
      const isBomb = caught instanceof MeshError && caught.code === 'CV-WIRE-TOO-LARGE';
      throw connectionError(isBomb ? H2.enhanceYourCalm : H2.compressionError, messageOf(caught));
    }
  }

  #onRequest(streamId: number, fields: readonly HeaderField[], isEnd: boolean, isSelfDependent: boolean): void {
    const { streams, settings } = this.#core;
    streams.seen(streamId);
    const checked = readRequest(fields);
    if ('malformed' in checked || isSelfDependent) return this.#refuse(streamId, H2.protocolError);
    const isFull = streams.size >= (settings.maxStreams ?? Number.POSITIVE_INFINITY);
    if (isFull || !this.#deps.acceptsStreams()) return this.#refuse(streamId, H2.refusedStream);
    const stream = this.#core.newStream();
    streams.accept(streamId, stream);
    this.#deps.onStream(stream, checked.head);
    if (isEnd && stream.receiving.isOpen) stream.receiveEnd();
  }

  #onMoreHeaders(stream: H2Stream, fields: readonly HeaderField[], isEnd: boolean): void {
    if (!stream.receiving.isOpen) return this.#fault(stream.id, H2.streamClosed, 'HEADERS after END_STREAM');
    if (this.#core.role === 'client' && !stream.isAnswered) return this.#onResponse(stream, fields, isEnd);
    const trailers = isEnd ? readTrailers(fields) : { malformed: 'a second header section' };
    if ('malformed' in trailers) return this.#fault(stream.id, H2.protocolError, trailers.malformed);
    stream.receiveEnd(trailers.head);
  }

  #onResponse(stream: H2Stream, fields: readonly HeaderField[], isEnd: boolean): void {
    const checked = readResponse(fields);
    if ('malformed' in checked) return this.#fault(stream.id, H2.protocolError, checked.malformed);
    const { status } = checked.head;
    if (status >= 200) {
      stream.receiveResponse(checked.head);
      if (isEnd && stream.receiving.isOpen) stream.receiveEnd();
    } else if (isEnd || status === 101) {
      this.#fault(stream.id, H2.protocolError, 'an interim response that ends the stream');
    } else {
      this.#core.abuse.spend('uselessFrames');
    }
  }

  /** After a reset of ours the peer's frames are still on their way; on any other closed stream they are a fault. */
  #onLateData(streamId: number): void {
    this.#requireNotIdle(streamId, 'DATA');
    if (!this.#core.streams.wasReset(streamId)) this.#refuse(streamId, H2.streamClosed);
  }

  #onLateHeaders(streamId: number): void {
    if (!this.#core.streams.wasReset(streamId)) throw connectionError(H2.streamClosed, 'HEADERS on a closed stream');
    this.#core.abuse.spend('uselessFrames');
  }

  #requireNotIdle(streamId: number, frameName: string): void {
    if (this.#core.streams.isIdle(streamId)) throw connectionError(H2.protocolError, `${frameName} on an idle stream`);
  }

  #fault(streamId: number, code: H2Code, message: string): void {
    const stream = this.#core.streams.get(streamId);
    this.#refuse(streamId, code);
    if (stream === undefined) return;
    stream.fail(new MeshError('CV-TUNNEL-HTTP2', `HTTP/2: ${message}`, { h2Code: code }));
    this.#core.release(stream);
  }

  #refuse(streamId: number, code: H2Code): void {
    this.#core.control(resetFrame(streamId, code));
    this.#core.streams.rememberReset(streamId);
    this.#core.abuse.spend('ownResets');
  }

  #shiftWindows(delta: number): void {
    if (delta === 0) return;
    for (const { sending } of this.#core.streams.all()) {
      sending.window += delta;
      if (sending.window > MAX_31_BITS) throw connectionError(H2.flowControlError, 'a stream window over 2^31-1');
      if (sending.isOpen) this.#core.sender.makeReady(sending);
    }
  }

  #spendWindowUpdate(): void {
    const { abuse, sender } = this.#core;
    const sent = sender.dataFrames - this.#explainedFrames;
    if (sent > 0) abuse.earn('windowUpdates', sent * UPDATES_PER_DATA_FRAME);
    this.#explainedFrames = sender.dataFrames;
    abuse.spend('windowUpdates');
  }
}
