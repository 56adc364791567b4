/**
 * One direction between two sockets, moved without reading it: the state machine around one pipe. A turn fills and drains
 * the pipe until the source has no more, the sink takes no more, or the turn has been long enough.
 */
import type { Pipe } from '../sys/pipe.ts';

/** One turn, 1 MiB: 0.3 ms, after which others have theirs. */
const TURN_BYTES = 1024 * 1024;
/** What is taken out of a pipe to wait with it until the sink takes more. */
const PIECE_BYTES = 16 * 1024;

export type SplicePipe = Pick<Pipe, 'heldBytes' | 'fill' | 'drain' | 'read' | 'giveBack'>;

/** A socket as splice sees it. */
export interface SpliceEnd {
  /** `undefined` when it is gone. */
  readonly fd: number | undefined;
  /** All that was written before is with the kernel. */
  readonly isFlushed: boolean;
  /** Writes as ever, and calls `then` when that is with the kernel. Never when the socket is gone. */
  writeThen(piece: Uint8Array, then: () => void): void;
  /** So many bytes wait for it in a pipe. */
  waits(pipedBytes: number): void;
  /** The kernel says that the socket is broken. It closes; no byte of it is lost that the kernel still had. */
  fail(errno: string): void;
}

export class Splice {
  readonly #source: SpliceEnd;
  readonly #sink: SpliceEnd;
  readonly #takePipe: () => SplicePipe | undefined;
  readonly #onFlushed: () => void;
  /** Only while it holds bytes, or during a turn. */
  #pipe: SplicePipe | undefined;

  /** `onFlushed`: what a turn left behind has gone on. */
  constructor(
    ends: { readonly source: SpliceEnd; readonly sink: SpliceEnd },
    takePipe: () => SplicePipe | undefined,
    onFlushed: () => void,
  ) {
    this.#source = ends.source;
    this.#sink = ends.sink;
    this.#takePipe = takePipe;
    this.#onFlushed = onFlushed;
  }

  /** A turn left something behind: the source must not be read until `onFlushed`. */
  get isHolding(): boolean {
    return this.#pipe !== undefined;
  }

  /** Bytes that the sink was not given yet, in any way. */
  get heldBytes(): number {
    return this.#pipe?.heldBytes ?? 0;
  }

  /** How many bytes left the source. Not to be called while it is holding. */
  turn(): number {
    const { fd } = this.#source;
    if (fd === undefined || !this.#sink.isFlushed) return 0;
    const pipe = this.#takePipe();
    if (pipe === undefined) return 0;
    this.#pipe = pipe;
    let moved = 0;
    while (moved < TURN_BYTES) {
      const filled = pipe.fill(fd);
      if (typeof filled !== 'number') {
        this.#source.fail(filled.errno);
        break;
      }
      moved += filled;
      if (filled === 0 || !this.#drain(pipe)) break;
    }
    this.#settle(pipe);
    return moved;
  }

  /** The connection is over, or goes on without this. */
  close(): void {
    if (this.#pipe === undefined) return;
    this.#pipe.giveBack();
    this.#pipe = undefined;
    this.#sink.waits(0);
  }

  /** True when the pipe is empty. */
  #drain(pipe: SplicePipe): boolean {
    const { fd } = this.#sink;
    while (fd !== undefined && pipe.heldBytes > 0) {
      const drained = pipe.drain(fd);
      if (drained === 0) break;
      if (typeof drained !== 'number') {
        this.#sink.fail(drained.errno);
        break;
      }
    }
    return pipe.heldBytes === 0;
  }

  /** Gives an empty pipe back. Of another, a piece is written the ordinary way: the sink tells when that has gone. */
  #settle(pipe: SplicePipe): void {
    if (pipe.heldBytes === 0) {
      this.close();
      return;
    }
    const piece = Buffer.allocUnsafe(Math.min(PIECE_BYTES, pipe.heldBytes));
    const taken = pipe.read(piece);
    this.#sink.waits(pipe.heldBytes);
    this.#sink.writeThen(piece.subarray(0, taken), () => this.#goOn(pipe));
  }

  #goOn(pipe: SplicePipe): void {
    if (this.#pipe !== pipe) return;
    this.#drain(pipe);
    this.#settle(pipe);
    if (this.#pipe === undefined) this.#onFlushed();
  }
}
