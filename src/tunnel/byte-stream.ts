/** What the relay joins: a bidirectional byte stream whose halves end independently. Sockets and tunnel streams are both one. */
import type { MeshError } from '../base/errors.ts';
import type { Splice } from './splice.ts';

/** Set once, before the first byte can arrive. Callbacks are called synchronously and must not throw. */
export interface ByteStreamHandlers {
  /** When the stream lends (`isLending`), `chunk` is valid during the call only; otherwise it belongs to the receiver. */
  onData(chunk: Uint8Array): void;
  /** The peer ended its half in order. No `onData` follows. */
  onEnd(): void;
  /** A `write` that returned false has been flushed below the low-water mark. */
  onDrain(): void;
  /** Last event, exactly once: both halves are done, or the stream broke (`error`). Resets that end TCP in practice carry no error. */
  onClose(error: MeshError | undefined): void;
}

export interface ByteStream {
  /** Binds the receiver. Until then nothing is read. */
  open(handlers: ByteStreamHandlers): void;
  /**
   * False: buffered over the high-water mark, wait for `onDrain`. Ignored after `end` or close. What cannot go on during
   * the call is copied when `isLent`, and kept as it is otherwise.
   */
  write(chunk: Uint8Array, isLent?: boolean): boolean;
  /** Ends our half after what was written. Idempotent. */
  end(): void;
  /** Stops `onData`; at most one more chunk may arrive. The peer is slowed by its window. */
  pause(): void;
  resume(): void;
  /** Ends both halves now. Idempotent; `onClose` follows. */
  destroy(error?: MeshError): void;
  /** Bytes accepted by `write` and not yet handed to the kernel or the tunnel. */
  readonly bufferedBytes: number;
  /** Our half has ended, and its end is still on the way to the kernel. Absent: nothing is known of that, or need be. */
  readonly isEnding?: boolean;
  /** It is in no tunnel, or about to leave one: what is written waits, and `onDrain` follows when it goes on. Absent: never. */
  readonly isHalted?: boolean;
  /**
   * A second descriptor of the socket that carries the bytes, the caller's to close. `undefined`: it cannot go on in another
   * process, because something is under way here. Absent: it has no socket of its own. To be asked of a paused stream.
   */
  duplicate?(): number | undefined;
  /** The chunks given to `onData` are lent; known once it is open. */
  readonly isLending: boolean;
  /**
   * A way on into `sink` for what need not be read here; `undefined` when they are not both sockets. `onFlushed`: what one of
   * its turns left behind has gone on. Absent: it has no socket of its own.
   */
  spliceInto?(sink: ByteStream, onFlushed: () => void): Splice | undefined;
  /** A chunk of `onData` of this length says that there is more; only where `spliceInto` is. */
  readonly fullChunkBytes?: number;
}
