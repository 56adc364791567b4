/** Joins two byte streams until both directions have ended. Knows nothing of TLS, HTTP/2 or policy. */
import { type Clock, delay } from '../base/clock.ts';
import { MeshError } from '../base/errors.ts';
import { closeFd } from '../sys/duplicate.ts';
import { endedSocket } from '../sys/ended-socket.ts';
import type { Obstacle } from '../telemetry/connection-view.ts';
import type { ByteStream, ByteStreamHandlers } from './byte-stream.ts';
import type { Splice } from './splice.ts';

/** Told of every chunk and of the end. One object, and no function per direction: thousands of relays idle. */
export interface RelayOwner {
  addClientBytes(bytes: number): void;
  addServerBytes(bytes: number): void;
  /** `undefined` = ended in order, or by a reset, which is how TCP ends. */
  relayDone(error: MeshError | undefined): void;
}

/** The sockets of a connection that another process is to carry, as descriptors. */
export interface MovedSockets {
  readonly downstream: number;
  readonly upstream: number;
}

/** Flushing is seen by looking; only a hand-over waits here. */
const QUIESCE_POLL_MS = 1;

/** Who asks whether a connection is idle: each sweep has its own period, and so its own memory of the last look. */
export type IdleSweep = 'any' | 'half-closed' | 'drain';
/** How much had moved at the last look of each sweep. */
export type IdleLooks = Partial<Record<IdleSweep, number>>;

/** RFC 9113 §8.5: an error in the TCP connection is passed on as a reset, never as an orderly end. */
const RESET_BY_PEER = new MeshError('CV-IO', 'connection reset by peer');

/**
 * One joined connection. Half-close is kept: the end of one direction is passed on while the other still flows.
 * Back-pressure is one rule: a `write` that returns false pauses the opposite stream until it drains.
 */
export class Relay {
  readonly #down: Side;
  readonly #up: Side;
  readonly #owner: RelayOwner;
  #error: MeshError | undefined;
  #isQuiescing = false;
  #isMoved = false;
  /** Grows with every byte, and with the end of a half. */
  #moves = 0;

  constructor(downstream: ByteStream, upstream: ByteStream, owner: RelayOwner) {
    this.#owner = owner;
    this.#down = new Side(this, downstream);
    this.#up = new Side(this, upstream);
    this.#down.other = this.#up;
    this.#up.other = this.#down;
  }

  start(): void {
    this.#up.open();
    this.#down.open();
  }

  /** Ends both streams now. The owner is told `error`. */
  close(error: MeshError): void {
    this.#error ??= error;
    this.#down.stream.destroy(error);
    this.#up.stream.destroy(error);
  }

  /**
   * Stops reading on both sides and resolves when everything read so far has left this process, or after `withinMs`. The
   * streams stay open and idle: their owner may `detach` the sockets, or call `unquiesce`.
   */
  async quiesce(clock: Clock, withinMs = Number.POSITIVE_INFINITY): Promise<void> {
    this.#isQuiescing = true;
    this.#down.stream.pause();
    this.#up.stream.pause();
    const endMs = clock.monotonicMs() + withinMs;
    while (!this.#isFlushed && clock.monotonicMs() < endMs) await delay(clock, QUIESCE_POLL_MS);
  }

  /** Both streams have sockets of their own. */
  get isMovable(): boolean {
    return this.#down.stream.duplicate !== undefined && this.#up.stream.duplicate !== undefined;
  }

  /** What keeps the sockets here, as far as can be told before anything was tried. */
  get obstacle(): Obstacle | undefined {
    return this.isMovable ? this.#obstacleAt(this.#down, this.#up) : 'tunnel';
  }

  /** The same when the stream of `tunnel` can leave it. */
  obstacleBeside(tunnel: ByteStream): Obstacle | undefined {
    return this.#obstacleAt(this.#sideBeside(tunnel));
  }

  #obstacleAt(...sockets: readonly Side[]): Obstacle | undefined {
    if (sockets.some(({ stream }) => !stream.isLending)) return 'read-ahead';
    return this.#isFlushed ? undefined : 'unread';
  }

  #sideBeside(tunnel: ByteStream): Side {
    return this.#down.stream === tunnel ? this.#up : this.#down;
  }

  /**
   * Descriptors of both sockets, for another process to relay between: the caller's from now on. Nothing more is told to
   * the owner. `undefined` when one cannot go, or is gone; all stays as it was then. To be asked once quiesced.
   */
  detach(): MovedSockets | undefined {
    if (this.#down.isClosed || this.#up.isClosed || !this.#isFlushed) return undefined;
    const downstream = this.#down.stream.duplicate?.();
    const upstream = downstream === undefined ? undefined : this.#up.stream.duplicate?.();
    if (downstream === undefined || upstream === undefined) {
      if (downstream !== undefined) closeFd(downstream);
      return undefined;
    }
    this.#isMoved = true;
    this.#down.stream.destroy();
    this.#up.stream.destroy();
    return { downstream, upstream };
  }

  /**
   * As `detach`, of the socket at the other end of `tunnel`, which is its owner's to deal with then. When that has closed in
   * order, only the tunnel has still to hear of its end: another socket says so.
   */
  detachFrom(tunnel: ByteStream): number | undefined {
    const side = this.#sideBeside(tunnel);
    // Whoever takes the connections of a pod, and whoever looks for this one, may ask in the same turn.
    if (this.#isMoved || !side.isFlushed) return undefined;
    const socket = side.isClosed ? side.isComplete && endedSocket() : side.stream.duplicate?.();
    if (socket === undefined || socket === false) return undefined;
    this.#isMoved = true;
    side.stream.destroy();
    return socket;
  }

  get #isFlushed(): boolean {
    return this.#down.isFlushed && this.#up.isFlushed;
  }

  /** What was to go to a stream that is halted meanwhile is read again when that goes on. */
  unquiesce(): void {
    this.#isQuiescing = false;
    this.#down.resumeUnlessBlocked();
    this.#up.resumeUnlessBlocked();
  }

  get isQuiescing(): boolean {
    return this.#isQuiescing;
  }

  /** True when one half has ended, or both have and a reader does not take the rest. */
  get isHalfClosed(): boolean {
    return this.#down.hasEnded || this.#up.hasEnded;
  }

  /** True when nothing moved since the previous call for `sweep`: to be asked once per period. `looks` of whoever asks. */
  takeIdle(sweep: IdleSweep, looks: IdleLooks): boolean {
    const isIdle = this.#moves === looks[sweep];
    looks[sweep] = this.#moves;
    return isIdle;
  }

  /** @internal Side only: it has read so much for the other one. */
  carried(side: Side, bytes: number): void {
    if (side === this.#down) this.#owner.addClientBytes(bytes);
    else this.#owner.addServerBytes(bytes);
    this.#moves += bytes;
  }

  /** @internal Side only. */
  halfEnded(): void {
    this.#moves += 1;
  }

  /** @internal Side only: one stream is gone. The relay is over when both are. */
  closed(side: Side, error: MeshError | undefined): void {
    if (this.#isMoved) return;
    // That one is ours: the other stream was told to pass the reset on.
    if (error !== RESET_BY_PEER) this.#error ??= error && directed(error, side === this.#down);
    if (side.other.isClosed) {
      this.#owner.relayDone(this.#error);
      return;
    }
    if (!side.isComplete) side.other.stream.destroy(error ?? RESET_BY_PEER);
  }
}

/** One of the two streams, seen as a source: what it reads goes to `other`. */
class Side implements ByteStreamHandlers {
  readonly stream: ByteStream;
  readonly #relay: Relay;
  #other: Side | undefined;
  hasEnded = false;
  isClosed = false;
  #isBlocked = false;
  /** For bulk between two sockets; made when the first full chunk comes. */
  #splice: Splice | undefined;

  constructor(relay: Relay, stream: ByteStream) {
    this.#relay = relay;
    this.stream = stream;
  }

  get other(): Side {
    return this.#other ?? this;
  }

  set other(side: Side) {
    this.#other = side;
  }

  /** Both halves ended in order: we read the end, and the other direction's end was written. */
  get isComplete(): boolean {
    return this.hasEnded && this.other.hasEnded;
  }

  open(): void {
    this.stream.open(this);
  }

  onData(chunk: Uint8Array): void {
    this.#relay.carried(this, chunk.length);
    if (!this.other.stream.write(chunk, this.stream.isLending)) this.#block();
    else if (chunk.length === this.stream.fullChunkBytes && this.stream.isLending) this.#spliceOn();
  }

  onEnd(): void {
    this.hasEnded = true;
    this.#relay.halfEnded();
    this.other.stream.end();
  }

  onDrain(): void {
    this.other.#unblock();
  }

  onClose(error: MeshError | undefined): void {
    if (this.isClosed) return;
    this.isClosed = true;
    this.#splice?.close();
    this.other.#splice?.close();
    this.#relay.closed(this, error);
  }

  /** All that it was given has left this process; so has its end. */
  get isFlushed(): boolean {
    if (this.isClosed) return true;
    return this.stream.bufferedBytes + (this.#splice?.heldBytes ?? 0) === 0 && this.stream.isEnding !== true;
  }

  resumeUnlessBlocked(): void {
    if (this.other.stream.isHalted === true) this.#isBlocked = true;
    if (!this.#isBlocked) this.stream.resume();
  }

  #block(): void {
    this.#isBlocked = true;
    this.stream.pause();
  }

  #unblock(): void {
    if (this.#splice?.isHolding === true) return;
    this.#isBlocked = false;
    if (!this.#relay.isQuiescing) this.stream.resume();
  }

  /** There is more than fits one chunk: it goes on from socket to socket without coming here. */
  #spliceOn(): void {
    this.#splice ??= this.stream.spliceInto?.(this.other.stream, () => this.#unblock());
    if (this.#splice === undefined) return;
    const bytes = this.#splice.turn();
    if (bytes > 0) this.#relay.carried(this, bytes);
    if (this.#splice.isHolding) this.#block();
  }
}

/** A failing socket does not know which way it carries; log lines say it. */
function directed(error: MeshError, isDownstream: boolean): MeshError {
  if (error.code !== 'CV-IO') return error;
  return new MeshError('CV-IO', `${isDownstream ? 'send' : 'receive'}: ${error.message}`, error.fields, {
    cause: error,
  });
}
