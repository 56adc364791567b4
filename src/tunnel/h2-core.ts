/** What both directions of an HBONE session share: its streams, its windows, and what streams ask of their session. */
import type { Duplex } from 'node:stream';
import type { Clock } from '../base/clock.ts';
import { connectionError, DEFAULT_WINDOW_BYTES, FLAG, FRAME, H2 } from '../wire/h2-protocol.ts';
import { frame, headersFrames, resetFrame, windowUpdateFrame } from '../wire/h2-write.ts';
import { HpackEncoder } from '../wire/hpack-encoder.ts';
import { H2Abuse } from './h2-abuse.ts';
import type { H2ReceiveHalf } from './h2-receive-half.ts';
import type { H2SendHalf } from './h2-send-half.ts';
import { H2Sender } from './h2-sender.ts';
import { defaultPeerSettings, type H2Limits, type H2Role, type H2Settings, type PeerSettings } from './h2-settings.ts';
import { H2Stream } from './h2-stream.ts';
import type { OutgoingHeaders, StreamHost } from './h2-stream-host.ts';
import { H2Streams } from './h2-streams.ts';
import type { LoopShare } from './loop-share.ts';

export interface CoreOptions {
  readonly socket: Duplex;
  readonly role: H2Role;
  readonly settings: H2Settings;
  readonly limits: H2Limits;
  readonly clock: Clock;
  readonly share: LoopShare | undefined;
  /** A stream has left the wire: there may be a free slot, or nothing left to drain. */
  onStreamGone(stream: H2Stream): void;
}

const NO_BYTES = new Uint8Array(0);

export class H2Core implements StreamHost {
  readonly role: H2Role;
  readonly settings: H2Settings;
  readonly limits: H2Limits;
  readonly streams: H2Streams;
  readonly sender: H2Sender;
  readonly abuse: H2Abuse;
  /** What the socket gives us is lent: streams pass it on at once or copy it. */
  isLending = false;
  readonly peer: PeerSettings = defaultPeerSettings();
  readonly #encoder = new HpackEncoder();
  readonly #share: LoopShare | undefined;
  readonly #onStreamGone: (stream: H2Stream) => void;
  /** What the peer may still send on all streams, and what we took and have not told it. */
  #receiveWindow: number;
  #unclaimedBytes = 0;
  /** In inboxes of paused streams; `#heldBytes` of them hold back the connection window. */
  #parkedBytes = 0;
  #heldBytes = 0;
  #isTableUpdateDue = false;

  constructor(options: CoreOptions) {
    this.role = options.role;
    this.#share = options.share;
    this.settings = options.settings;
    this.limits = options.limits;
    this.streams = new H2Streams(options.role);
    this.sender = new H2Sender(options.socket, options.share);
    this.abuse = new H2Abuse(options.limits, options.clock);
    this.#receiveWindow = Math.max(DEFAULT_WINDOW_BYTES, options.settings.connectionWindowBytes);
    this.#onStreamGone = (stream) => options.onStreamGone(stream);
  }

  newStream(): H2Stream {
    return new H2Stream(this, {
      isClient: this.role === 'client',
      sendWindow: this.peer.initialWindowBytes,
      receiveWindow: this.settings.streamWindowBytes,
    });
  }

  control(bytes: Uint8Array): void {
    this.sender.output.control(bytes);
  }

  /** Encodes first and opens after: headers that cannot be sent cost no stream id. */
  sendRequest(stream: H2Stream, authority: string, headers: OutgoingHeaders): void {
    const block = this.#encode(
      [
        [':method', 'CONNECT'],
        [':authority', authority],
      ],
      headers,
    );
    stream.sending.window = this.peer.initialWindowBytes;
    const id = this.streams.start(stream);
    this.control(headersFrames(id, block, false, this.peer.maxFrameBytes));
    stream.requested();
  }

  sendResponse(stream: H2Stream, status: number, headers: OutgoingHeaders, isEnd: boolean): void {
    const block = this.#encode([[':status', String(status)]], headers);
    this.control(headersFrames(stream.id, block, isEnd, this.peer.maxFrameBytes));
  }

  sendNow(half: H2SendHalf, chunk: Uint8Array): number {
    return this.sender.sendNow(half, chunk);
  }

  mayGoOn(half: H2SendHalf, bytes: number): boolean {
    return this.sender.mayGoOn(half, bytes);
  }

  queued(half: H2SendHalf, bytes: number): boolean {
    return this.sender.queued(half, bytes, half.isOpen);
  }

  dropped(half: H2SendHalf, bytes: number): void {
    this.sender.dropped(half, bytes);
  }

  sendEnd({ id }: H2SendHalf, trailers: OutgoingHeaders | undefined): void {
    if (trailers === undefined) this.control(frame(FRAME.data, FLAG.endStream, id, NO_BYTES));
    else this.control(headersFrames(id, this.#encode([], trailers), true, this.peer.maxFrameBytes));
  }

  get canSuspend(): boolean {
    return this.peer.canSuspend;
  }

  askToSuspend({ id }: H2Stream): void {
    this.control(frame(FRAME.suspend, 0, id, NO_BYTES));
  }

  reset(stream: H2Stream, code: number): void {
    if (stream.id !== 0) {
      this.control(resetFrame(stream.id, code));
      this.streams.rememberReset(stream.id);
    }
    this.release(stream);
  }

  release(stream: H2Stream): void {
    this.streams.remove(stream.id);
    this.#onStreamGone(stream);
  }

  /** The peer sent `bytes` of DATA, on whatever stream. */
  charge(bytes: number): void {
    this.#receiveWindow -= bytes;
    if (this.#receiveWindow < 0) throw connectionError(H2.flowControlError, 'the peer overran the connection window');
  }

  parked(bytes: number): void {
    this.#park(bytes);
    const isRoom = this.#parkedBytes <= this.limits.maxParkedBytes && this.#share?.isCrowded !== true;
    if (isRoom) this.creditConnection(bytes);
    else this.#heldBytes += bytes;
  }

  credit(half: H2ReceiveHalf, bytes: number, wasParked: boolean): void {
    half.unclaimedBytes += bytes;
    if (half.unclaimedBytes * 2 >= this.settings.streamWindowBytes && half.isOpen) {
      this.control(windowUpdateFrame(half.id, half.unclaimedBytes));
      half.window += half.unclaimedBytes;
      half.unclaimedBytes = 0;
    }
    if (!wasParked) return this.creditConnection(bytes);
    this.#park(-bytes);
    const released = Math.min(bytes, this.#heldBytes);
    this.#heldBytes -= released;
    this.creditConnection(released);
  }

  #park(bytes: number): void {
    this.#parkedBytes += bytes;
    if (this.#share !== undefined) this.#share.bufferedBytes += bytes;
  }

  creditConnection(bytes: number): void {
    this.#unclaimedBytes += bytes;
    if (this.#unclaimedBytes * 2 < this.settings.connectionWindowBytes) return;
    this.control(windowUpdateFrame(0, this.#unclaimedBytes));
    this.#receiveWindow += this.#unclaimedBytes;
    this.#unclaimedBytes = 0;
  }

  /** RFC 7541 §4.2: a peer that wants a smaller table must be told that we comply. We keep none at all. */
  tableUpdateDue(): void {
    this.#isTableUpdateDue = true;
  }

  #encode(pseudo: readonly (readonly [string, string])[], headers: OutgoingHeaders): Uint8Array {
    const encoder = this.#encoder;
    if (this.#isTableUpdateDue) encoder.tableSizeZero();
    for (const [name, value] of pseudo) encoder.field(name, value);
    for (const [name, value] of Object.entries(headers)) {
      if (typeof value === 'string') encoder.field(name, value);
      else for (const each of value) encoder.field(name, each);
    }
    this.#isTableUpdateDue = false;
    return encoder.finish();
  }
}
