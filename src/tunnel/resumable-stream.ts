/**
 * A tunnel stream that can leave its tunnel and go on in another, in this process or in the next one
 * (`agent/hand-over/README.md`). Whoever is at its near end sees one stream: while it is in no tunnel it takes no more
 * than one chunk and gives none.
 */
import { type Clock, withDeadline } from '../base/clock.ts';
import { MeshError } from '../base/errors.ts';
import type { ByteStream, ByteStreamHandlers } from './byte-stream.ts';
import { ChunkQueue } from './h2-chunks.ts';
import type { H2Stream } from './h2-stream.ts';
import { PastLegs } from './past-legs.ts';
import { Leg, type LegOwner } from './resumable-leg.ts';

/** What is on its way through a stream that is in no tunnel. */
export interface BytesUnderWay {
  /** Arrived through the former tunnel, and not taken at the near end yet. */
  readonly toApp: Uint8Array;
  /** Taken at the near end since. */
  readonly toTunnel: Uint8Array;
}

export interface ResumableOwner {
  /**
   * It has left its tunnel, all that either end said in there has arrived or is on its way, and nobody moves it: attach another.
   * Said again when somebody wanted to move it, and did not.
   */
  streamDetached(): void;
  streamClosed(): void;
}

export class ResumableStream implements ByteStream, LegOwner {
  readonly #owner: ResumableOwner;
  #handlers: ByteStreamHandlers | undefined;
  /** In the tunnel. */
  #leg: Leg | undefined;
  readonly #past = new PastLegs();
  /** For the next tunnel; absent while there is nothing. */
  #outbox: ChunkQueue | undefined;
  #early: Uint8Array | undefined;
  #hasEnded = false;
  #isPeerEndTold = false;
  #isPaused = false;
  #isBlocked = false;
  #isMoving = false;
  /** While somebody waits for it to leave. */
  #left: PromiseWithResolvers<void> | undefined;
  #isClosed = false;
  #closeError: MeshError | undefined;

  /** `from`: what it is in now; or it is in no tunnel, with these bytes under way. */
  constructor(owner: ResumableOwner, from: H2Stream | BytesUnderWay) {
    this.#owner = owner;
    if ('toApp' in from) {
      this.#isBlocked = true;
      this.#early = from.toApp;
      if (from.toTunnel.length > 0) this.#keep(from.toTunnel, false);
    } else this.#leg = new Leg(this, from);
  }

  get isLending(): boolean {
    return (this.#past.undelivered ?? this.#leg)?.stream.isLending ?? true;
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  get isHalted(): boolean {
    return !this.#isClosed && this.#leg?.isLeaving !== false;
  }

  /** In no tunnel, and everything that was to go through the last one has gone. */
  get isDetached(): boolean {
    return this.#leg === undefined && this.#past.isAllSaid;
  }

  /** It is in no tunnel, or can leave the one it is in. */
  get canLeave(): boolean {
    return this.#leg?.canLeave ?? true;
  }

  /** What waits for the next tunnel does not count: it is carried along. */
  get bufferedBytes(): number {
    return this.#past.bufferedBytes + (this.#leg?.stream.bufferedBytes ?? 0);
  }

  open(handlers: ByteStreamHandlers): void {
    this.#handlers = handlers;
    if (this.#isClosed) {
      handlers.onClose(this.#closeError);
      return;
    }
    const early = this.#early;
    this.#early = undefined;
    if (early !== undefined && early.length > 0) handlers.onData(early);
    if (this.#leg !== undefined) this.#openLeg(this.#leg);
  }

  write(chunk: Uint8Array, isLent = false): boolean {
    if (this.#hasEnded || this.#isClosed) return true;
    const leg = this.#leg;
    if (leg === undefined || leg.isLeaving) {
      this.#keep(chunk, isLent);
      return false;
    }
    const mayGoOn = leg.send(chunk, isLent);
    if (!mayGoOn) this.#isBlocked = true;
    return mayGoOn;
  }

  end(): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    // What waits goes first, in the next tunnel.
    if (this.#leg?.isLeaving === false) this.#leg.end();
  }

  pause(): void {
    this.#isPaused = true;
    for (const { stream } of this.#past.all()) stream.pause();
    this.#leg?.stream.pause();
  }

  resume(): void {
    this.#isPaused = false;
    (this.#past.undelivered ?? this.#leg)?.stream.resume();
  }

  destroy(error?: MeshError): void {
    if (this.#isClosed) return;
    const legs = [...this.#past.all(), this.#leg];
    this.#close(error);
    for (const leg of legs) leg?.stream.destroy(error);
  }

  /** Goes on in the tunnel of `stream`. */
  attach(stream: H2Stream): void {
    if (this.#isClosed || this.#leg !== undefined) {
      // A reset: what was cut must not look complete at the other end.
      stream.destroy(
        this.#closeError ?? new MeshError('CV-TUNNEL-CLOSED', 'the connection ended while it was in no tunnel'),
      );
      return;
    }
    const leg = new Leg(this, stream);
    this.#leg = leg;
    if (this.#isPaused || this.#past.undelivered !== undefined) stream.pause();
    if (this.#handlers !== undefined) this.#openLeg(leg);
  }

  /**
   * Leaves the tunnel, after all that was written. True: it has, and the owner either takes it or releases it. False: it is
   * closed, cannot leave, or the peer does not answer in time; when it does later on, the stream is detached as if it had asked.
   */
  async suspend(clock: Clock, withinMs: number): Promise<boolean> {
    if (this.#isClosed || !this.canLeave) return false;
    this.#isMoving = true;
    const leg = this.#leg;
    if (leg !== undefined) {
      if (leg.stream.hasRemoteEnd) this.#leaveLast(leg);
      else this.#leave(leg);
      if (leg === this.#leg) await this.#untilLeft(clock, withinMs);
    }
    if (!this.#isClosed && this.isDetached && this.#isWhole()) return true;
    this.release();
    return false;
  }

  /** Gives up what `suspend` began: the stream is to go on here. */
  release(): void {
    this.#isMoving = false;
    this.#tellDetached();
  }

  /** Of a suspended stream, for whoever goes on with it elsewhere; here it is over, and nobody is told so. */
  take(): BytesUnderWay {
    const toApp = this.#early ?? this.#past.takeInboxes();
    const toTunnel = new Uint8Array(this.#outbox?.bytes ?? 0);
    this.#outbox?.copyTo(toTunnel, 0, toTunnel.length);
    this.#isClosed = true;
    this.#owner.streamClosed();
    return { toApp, toTunnel };
  }

  #keep(chunk: Uint8Array, isLent: boolean): void {
    this.#outbox ??= new ChunkQueue();
    this.#outbox.push(chunk, isLent);
  }

  #openLeg(leg: Leg): void {
    // It may have left before anybody listened.
    if (leg === this.#leg && leg.stream.hasRemoteEnd) this.peerEnded(leg);
    if (leg.stream.isAskedToSuspend) this.suspendAsked(leg);
    leg.stream.open(leg);
    if (leg === this.#leg && !leg.isLeaving) this.#flush(leg);
  }

  #flush(leg: Leg): void {
    let mayGoOn = true;
    // A chunk is valid until the next one is taken.
    for (let chunk = this.#outbox?.shift(); chunk !== undefined; chunk = this.#outbox?.shift()) {
      mayGoOn = leg.send(chunk, true);
    }
    this.#outbox = undefined;
    if (this.#hasEnded) leg.end();
    else if (mayGoOn) this.#drained();
  }

  #drained(): void {
    if (!this.#isBlocked) return;
    this.#isBlocked = false;
    this.#handlers?.onDrain();
  }

  /** @internal Leg only, as are the next ones. */
  received(chunk: Uint8Array): void {
    this.#handlers?.onData(chunk);
  }

  legDrained(leg: Leg): void {
    if (leg === this.#leg && !leg.isLeaving) this.#drained();
  }

  lastSaid(leg: Leg): void {
    if (this.#past.has(leg)) this.#tellDetached();
  }

  peerEnded(leg: Leg): void {
    if (leg.claimedBytes !== undefined) {
      this.#leave(leg);
      this.#hasLeft(leg);
    } else if (leg.hasEnded) {
      // The last words of both: it ends in this tunnel, also when we wished otherwise.
      this.#left?.resolve();
    } else if (leg.isLeaving) {
      // A peer that ended while we said that we leave says so again in the next tunnel.
      this.#hasLeft(leg);
    }
  }

  /** When our half has ended too, our last words are on their way. */
  suspendAsked(leg: Leg): void {
    if (leg === this.#leg && !leg.hasEnded) this.#leaveLast(leg);
  }

  /** The peer has ended before, so it is over in that tunnel with our last word, which is not to be taken for the end of all. */
  #leaveLast(leg: Leg): void {
    // In this order: its end in that tunnel is not ours.
    this.#hasLeft(leg);
    this.#leave(leg);
  }

  #leave(leg: Leg): void {
    this.#isBlocked = true;
    leg.leave();
  }

  #hasLeft(leg: Leg): void {
    if (this.#leg !== leg) return;
    this.#leg = undefined;
    this.#past.add(leg);
    this.#left?.resolve();
    this.#tellDetached();
  }

  /** Not before our last word is on its way: until then no peer can have the stream ready, which may take as long as its reader does. */
  #tellDetached(): void {
    if (!this.#isClosed && !this.#isMoving && this.isDetached) this.#owner.streamDetached();
  }

  async #untilLeft(clock: Clock, withinMs: number): Promise<void> {
    this.#left ??= Promise.withResolvers();
    const late = (): MeshError => new MeshError('CV-RESUME-LATE', 'the peer does not suspend');
    await withDeadline(this.#left.promise, clock, withinMs, late).catch(() => undefined);
    this.#left = undefined;
  }

  delivered(leg: Leg): void {
    if (this.#past.has(leg) && !this.#isWhole()) return;
    leg.isDelivered = true;
    const { undelivered } = this.#past;
    if (undelivered !== undefined) {
      if (!this.#isPaused) undelivered.stream.resume();
      return;
    }
    // Its end may have come before what an earlier tunnel brought was taken.
    if (this.#leg?.isDelivered === true) this.#tellPeerEnd();
    else if (!this.#isPaused) this.#leg?.stream.resume();
    this.#closeIfOver();
  }

  #tellPeerEnd(): void {
    if (this.#isPeerEndTold) return;
    this.#isPeerEndTold = true;
    this.#handlers?.onEnd();
  }

  #isWhole(): boolean {
    const { miscount } = this.#past;
    if (miscount !== undefined) this.destroy(new MeshError('CV-TUNNEL-CLOSED', miscount));
    return miscount === undefined;
  }

  legClosed(leg: Leg, error: MeshError | undefined): void {
    const isPast = this.#past.has(leg);
    if (leg !== this.#leg && !isPast) return;
    leg.isClosed = true;
    if (error !== undefined || (isPast && !leg.isOver)) this.#close(error);
    else if (isPast) this.#past.remove(leg);
    else this.#closeIfOver();
  }

  #closeIfOver(): void {
    if (this.#leg?.isClosed === true && this.#past.undelivered === undefined) this.#close(undefined);
  }

  #close(error: MeshError | undefined): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#closeError = error;
    this.#outbox?.clear();
    this.#left?.resolve();
    this.#owner.streamClosed();
    this.#handlers?.onClose(error);
  }
}
