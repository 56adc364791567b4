/** What the relay joins: a bidirectional byte stream whose halves end independently. Sockets and tunnel streams are both one. */
import type { MeshError } from '../base/errors.ts';

/** Set once, before the first byte can arrive. Callbacks are called synchronously and must not throw. */
export interface ByteStreamHandlers {
  /** `chunk` belongs to the receiver until its next turn of the event loop at least; it may be written on as it is. */
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
  /** False: buffered over the high-water mark, wait for `onDrain`. Ignored after `end` or close. */
  write(chunk: Uint8Array): boolean;
  /** Ends our half after what was written. Idempotent. */
  end(): void;
  /** Stops `onData`; at most one more chunk may arrive. The peer is slowed by its window. */
  pause(): void;
  resume(): void;
  /** Ends both halves now. Idempotent; `onClose` follows. */
  destroy(error?: MeshError): void;
  /** Bytes accepted by `write` and not yet handed to the kernel or the tunnel. */
  readonly bufferedBytes: number;
}
