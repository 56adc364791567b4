/** One HBONE session: HTTP/2 (RFC 9113) with CONNECT streams only, either role, on a connected socket. */
import net from 'node:net';
import type { Duplex } from 'node:stream';
import { setImmediate } from 'node:timers';
import tls from 'node:tls';
import { type Clock, deadline } from '../base/clock.ts';
import { MeshError, messageOf, toMeshError } from '../base/errors.ts';
import { peerSilenceMs } from '../sys/tcp.ts';
import { H2FrameParser } from '../wire/h2-frame.ts';
import type { RequestHead } from '../wire/h2-head.ts';
import { connectionError, DEFAULT_WINDOW_BYTES, H2, h2CodeName, MAX_31_BITS, PREFACE } from '../wire/h2-protocol.ts';
import { goawayFrame, pingFrame, settingsFrame, windowUpdateFrame } from '../wire/h2-write.ts';
import { H2Core } from './h2-core.ts';
import { H2Inbound } from './h2-inbound.ts';
import { readFrom } from './h2-input.ts';
import { H2Keepalive } from './h2-keepalive.ts';
import { type H2Request, H2RequestQueue } from './h2-request-queue.ts';
import {
  DEFAULT_LIMITS,
  type H2Limits,
  type H2Role,
  type H2Settings,
  type PeerSettings,
  settingsToSend,
} from './h2-settings.ts';
import type { H2Stream } from './h2-stream.ts';
import type { LoopShare } from './loop-share.ts';
import { SocketEnd } from './socket-end.ts';
import { TLS_PRICE, TurnedReader } from './turned-reader.ts';

export type { RequestHead } from '../wire/h2-head.ts';
export type { H2Request } from './h2-request-queue.ts';
export type { H2Limits, H2Settings } from './h2-settings.ts';

export interface H2SessionHandlers {
  /** Server: a request, well-formed but of any method. Answer with `respond`, or `reset`. */
  onStream?(stream: H2Stream, request: RequestHead): void;
  /** The peer takes no new streams; those it accepted go on. */
  onGoaway?(): void;
  /** The last stream has left the wire; others may follow. */
  onIdle?(): void;
  /** Exactly once: the session is over and every stream of it was told. No error: it ended in order. */
  onClose(error?: MeshError): void;
}

export interface H2SessionOptions {
  /** Connected, and handshaken when TLS; made with `allowHalfOpen`. The session owns it from now on. */
  readonly socket: Duplex;
  readonly role: H2Role;
  readonly settings: H2Settings;
  /** `DEFAULT_LIMITS` when absent. */
  readonly limits?: H2Limits;
  readonly clock: Clock;
  /** Of the workload whose tunnel this is; absent = it need not wait for turns. */
  readonly share?: LoopShare | undefined;
  readonly handlers: H2SessionHandlers;
}

/** Peers that announce no limit still get at most this many streams of ours. */
const MOST_STREAMS = 65_535;
/** The kernel counts in ticks: what was acknowledged at once may seem older than what it acknowledges. */
const TICK_MS = 20;
/** Padding, priority and table sizes come on top of the header list that a block encodes. */
const BLOCK_SLACK_BYTES = 4096;

export class H2Session {
  readonly #socket: Duplex;
  readonly #reader: TurnedReader;
  readonly #core: H2Core;
  readonly #parser: H2FrameParser;
  readonly #keepalive: H2Keepalive;
  readonly #clock: Clock;
  readonly #handlers: H2SessionHandlers;
  readonly #queue: H2RequestQueue;
  /** A record of 16 KiB may hold 1,800 frames. */
  readonly #isTurnOver = (): boolean => this.#reader.isTurnOver;
  readonly #share: LoopShare | undefined;
  /** TLS tells of each key it logs: after the handshake, of updates only. */
  readonly #onKeyUpdate = (): void => this.#keyUpdated();
  #settingsTimer: Disposable | undefined;
  #socketEnd: SocketEnd | undefined;
  #hasPeerSettings = false;
  #isAcknowledged = false;
  #hasPeerGoaway = false;
  /** GOAWAY of ours: none; sent as a warning, streams on their way are served; or final. */
  #goaway: 'none' | 'warned' | 'final' = 'none';
  #isClosed = false;

  constructor(options: H2SessionOptions) {
    const { socket, role, settings, limits = DEFAULT_LIMITS, clock, share } = options;
    this.#socket = socket;
    this.#share = share;
    const receiver = { onData: (chunk: Uint8Array): void => this.#receive(chunk) };
    this.#reader = new TurnedReader({ socket, share, price: TLS_PRICE, receiver });
    this.#clock = clock;
    this.#handlers = options.handlers;
    this.#queue = new H2RequestQueue(limits.maxQueuedRequests);
    this.#core = new H2Core({
      socket,
      role,
      settings,
      limits,
      clock,
      share,
      onStreamGone: (stream) => this.#streamGone(stream),
    });
    this.#parser = new H2FrameParser(new H2Inbound(this.#core, this.#inboundDeps()), {
      isServer: role === 'server',
      maxFrameBytes: settings.maxFrameBytes,
      maxHeaderBlockBytes: settings.maxHeaderListBytes + BLOCK_SLACK_BYTES,
      maxHeaderFrames: limits.maxHeaderFrames,
    });
    this.#keepalive = new H2Keepalive({
      clock,
      sendPing: (payload) => this.#core.control(pingFrame(payload, false)),
      isHostAlive: (sinceMs) => this.#isHostAlive(sinceMs),
      onDead: () => this.#dead(),
      onDrainAnswered: () => this.#finalGoaway(),
    });
    this.#start();
  }

  /** Streams open or waiting for a slot. */
  get activeStreams(): number {
    return this.#core.streams.size + this.#queue.length;
  }

  /** How many streams we may have open at once, as far as known. */
  get peerMaxStreams(): number {
    const unknown = this.#hasPeerSettings ? MOST_STREAMS : this.#core.limits.initialMaxStreams;
    return Math.min(MOST_STREAMS, this.#core.peer.maxStreams ?? unknown);
  }

  /** New requests may be sent: open, no GOAWAY seen or sent, ids left. */
  get isUsable(): boolean {
    return !this.#isClosed && !this.#hasPeerGoaway && this.#goaway === 'none' && this.#core.streams.hasIdsLeft;
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  get peerSettings(): Readonly<PeerSettings> {
    return this.#core.peer;
  }

  /** Client: opens a CONNECT stream, or queues it until the peer has a slot. Throws when the session takes no more. */
  request(request: H2Request): H2Stream {
    if (!this.isUsable) throw new MeshError('CV-TUNNEL-CLOSED', 'the tunnel takes no new streams');
    const stream = this.#core.newStream();
    if (this.#core.streams.size < this.peerMaxStreams && this.#queue.length === 0) {
      this.#core.sendRequest(stream, request.authority, request.headers ?? {});
      return stream;
    }
    this.#queue.push(stream, request);
    return stream;
  }

  /** Graceful end: no new streams, those in flight go on, then the socket closes. */
  goaway(): void {
    if (this.#isClosed || this.#goaway !== 'none') return;
    if (this.#core.role === 'client') {
      this.#finalGoaway();
      return;
    }
    this.#goaway = 'warned';
    this.#core.control(goawayFrame(MAX_31_BITS, H2.noError));
    this.#keepalive.sendDrainPing();
  }

  /** Abrupt end: GOAWAY, every stream closed with `error`, socket closed. */
  destroy(error?: MeshError): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#parser.stop();
    this.#keepalive.stop();
    this.#settingsTimer?.[Symbol.dispose]();
    const streamError = error ?? new MeshError('CV-TUNNEL-CLOSED', 'the tunnel was closed');
    this.#queue.failAll(streamError);
    for (const stream of this.#core.streams.takeAll()) stream.fail(streamError);
    this.#closeSocket(error);
    this.#handlers.onClose(error);
  }

  #start(): void {
    const { role, settings, limits } = this.#core;
    const socket = this.#socket;
    socket.on('error', (error) => this.#lost(`socket error: ${messageOf(error)}`));
    socket.on('end', () => {
      this.#reader.flush();
      this.#lost('the peer closed the connection');
    });
    socket.on('close', () => this.#socketClosed());
    if (socket instanceof net.Socket) socket.setNoDelay(true);
    if (socket instanceof tls.TLSSocket) socket.on('keylog', this.#onKeyUpdate);
    if (role === 'client') this.#core.control(PREFACE);
    this.#core.control(settingsFrame(settingsToSend(role, settings)));
    const extraBytes = settings.connectionWindowBytes - DEFAULT_WINDOW_BYTES;
    if (extraBytes > 0) this.#core.control(windowUpdateFrame(0, extraBytes));
    this.#settingsTimer = deadline(this.#clock, limits.settingsTimeoutMs, () => {
      const error = new MeshError('CV-TUNNEL-HTTP2', 'HTTP/2: no SETTINGS of the peer in time', {
        h2Code: H2.settingsTimeout,
        isHandshake: true,
      });
      this.destroy(error);
    });
    this.#keepalive.start();
    // Later, because the owner does not have this session yet.
    process.nextTick(() => this.#read());
  }

  #read(): void {
    if (this.#socket.destroyed) this.#lost('the connection was closed before HTTP/2 began');
    this.#core.isLending = readFrom(this.#socket, (chunk) => this.#reader.take(chunk));
  }

  /** The border: whatever a frame causes ends here. */
  #receive(chunk: Uint8Array): void {
    if (this.#isClosed) return;
    this.#keepalive.heard();
    try {
      const taken = this.#parser.push(chunk, this.#isTurnOver);
      if (taken < chunk.length) this.#reader.putBack(chunk.subarray(taken));
      if (this.#core.sender.output.pendingBytes > this.#core.limits.maxPendingBytes) {
        throw connectionError(H2.enhanceYourCalm, 'the peer makes us answer and does not read');
      }
    } catch (caught) {
      this.destroy(toMeshError(caught));
    }
  }

  /** Called in the middle of what TLS reads: it has to come to its end before anything is written. */
  #keyUpdated(): void {
    this.#share?.enter();
    try {
      this.#core.abuse.spend('keyUpdates');
    } catch (caught) {
      this.#socket.off('keylog', this.#onKeyUpdate);
      // Or libuv would read on, up to 32 times before anything else has its turn.
      this.#reader.pause();
      setImmediate(() => this.destroy(toMeshError(caught)));
    }
  }

  #inboundDeps(): ConstructorParameters<typeof H2Inbound>[1] {
    return {
      acceptsStreams: () => this.#goaway !== 'final',
      onStream: (stream, request) => this.#accept(stream, request),
      onSettings: () => this.#peerReady(),
      onSettingsAck: () => {
        this.#isAcknowledged = true;
        this.#stopSettingsTimer();
      },
      onPong: (payload) => this.#keepalive.answered(payload),
      onGoaway: (lastStreamId, code) => this.#peerGoaway(lastStreamId, code),
    };
  }

  /** A request was none that an honest peer makes; a session with too many of them is over. */
  oddRequest(): void {
    if (this.#isClosed) return;
    try {
      this.#core.abuse.spend('oddRequests');
    } catch (caught) {
      this.destroy(toMeshError(caught));
    }
  }

  #accept(stream: H2Stream, request: RequestHead): void {
    try {
      if (this.#handlers.onStream === undefined) stream.reset(H2.refusedStream);
      else this.#handlers.onStream(stream, request);
    } catch (caught) {
      stream.destroy(toMeshError(caught));
    }
  }

  #peerReady(): void {
    this.#hasPeerSettings = true;
    this.#stopSettingsTimer();
    this.#sendQueued();
  }

  #stopSettingsTimer(): void {
    if (!this.#hasPeerSettings || !this.#isAcknowledged) return;
    this.#settingsTimer?.[Symbol.dispose]();
    this.#settingsTimer = undefined;
  }

  #sendQueued(): void {
    while (this.isUsable && this.#core.streams.size < this.peerMaxStreams) {
      const next = this.#queue.shift();
      if (next === undefined) return;
      try {
        this.#core.sendRequest(next.stream, next.request.authority, next.request.headers ?? {});
      } catch (caught) {
        next.stream.fail(toMeshError(caught));
      }
    }
  }

  #streamGone(stream: H2Stream): void {
    if (this.#isClosed) return;
    if (stream.id === 0) this.#queue.remove(stream);
    else this.#sendQueued();
    this.#closeIfDrained();
    if (this.activeStreams === 0 && !this.#isClosed) this.#handlers.onIdle?.();
  }

  #finalGoaway(): void {
    if (this.#goaway === 'final' || this.#isClosed) return;
    this.#goaway = 'final';
    this.#core.control(goawayFrame(this.#core.streams.highestPeerId, H2.noError));
    this.#queue.failAll(new MeshError('CV-DRAIN', 'the tunnel is draining'));
    this.#closeIfDrained();
  }

  #peerGoaway(lastStreamId: number, code: number): void {
    this.#hasPeerGoaway = true;
    const error = new MeshError('CV-TUNNEL-CLOSED', `peer sent GOAWAY (${h2CodeName(code)}) before this stream`, {
      h2Code: code,
      isUnprocessed: true,
    });
    this.#queue.failAll(error);
    if (this.#core.role === 'client') {
      for (const stream of [...this.#core.streams.all()].filter(({ id }) => id > lastStreamId)) {
        this.#core.streams.remove(stream.id);
        stream.fail(error);
      }
    }
    this.#handlers.onGoaway?.();
    this.#closeIfDrained();
  }

  #closeIfDrained(): void {
    const isEnding = this.#hasPeerGoaway || this.#goaway === 'final';
    if (isEnding && this.activeStreams === 0) this.destroy();
  }

  #isHostAlive(sinceMs: number): boolean {
    const silenceMs = this.#socket instanceof net.Socket ? peerSilenceMs(this.#socket) : undefined;
    return silenceMs === undefined || silenceMs < this.#clock.monotonicMs() - sinceMs + TICK_MS;
  }

  #dead(): void {
    this.destroy(new MeshError('CV-TUNNEL-DEAD', 'the peer did not answer a PING'));
  }

  /** The socket went away under us. In order only between streams, after the peer had spoken. */
  #lost(message: string): void {
    const isInOrder = this.#hasPeerSettings && this.activeStreams === 0;
    const error = this.#hasPeerSettings
      ? new MeshError('CV-TUNNEL-CLOSED', message)
      : new MeshError('CV-TUNNEL-HTTP2', message, { isHandshake: true });
    this.destroy(isInOrder ? undefined : error);
  }

  #socketClosed(): void {
    this.#reader.flush();
    this.#lost('the connection was closed');
    this.#socketEnd?.[Symbol.dispose]();
    this.#core.sender.output.close();
  }

  #closeSocket(error: MeshError | undefined): void {
    const socket = this.#socket;
    const code = h2CodeOf(error);
    if (socket.destroyed || !socket.writable) {
      socket.destroy();
      return;
    }
    // What follows a fault is read by nobody, and costs the peer less to send than us to decrypt.
    if (code !== H2.noError) this.#reader.pause();
    // Before the peer has spoken HTTP/2 a GOAWAY is still right: it knows the preface of a server (RFC 9113 §3.4).
    this.#core.control(goawayFrame(this.#core.streams.highestPeerId, code, error?.message.slice(0, 128)));
    this.#core.sender.output.finish(() => socket.end());
    this.#socketEnd = new SocketEnd(socket, this.#clock, error === undefined);
  }
}

function h2CodeOf(error: MeshError | undefined): number {
  const code = error?.fields['h2Code'];
  if (typeof code === 'number') return code;
  return error?.code === 'CV-BUG' ? H2.internalError : H2.noError;
}
