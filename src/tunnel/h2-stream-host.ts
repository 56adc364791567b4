/** What a stream of an HBONE session needs of its session. */
import type { H2Stream } from './h2-stream.ts';

/** Header names in lower case; text of Latin-1. */
export type OutgoingHeaders = Readonly<Record<string, string | readonly string[]>>;

export interface StreamHost {
  /** Chunks are valid during `receive` only. */
  readonly isLending: boolean;
  /** Sends response HEADERS. */
  sendResponse(stream: H2Stream, status: number, headers: OutgoingHeaders, isEnd: boolean): void;
  /** Frames what may go out now; returns how many octets. */
  sendNow(stream: H2Stream, chunk: Uint8Array): number;
  /** After all of a chunk of `bytes` was framed. False: the writer should wait. */
  mayGoOn(stream: H2Stream, bytes: number): boolean;
  /** `bytes` joined the outbox. False: the writer should wait. */
  queued(stream: H2Stream, bytes: number): boolean;
  /** `bytes` left the outbox unsent. */
  dropped(stream: H2Stream, bytes: number): void;
  sendEnd(stream: H2Stream, trailers: OutgoingHeaders | undefined): void;
  /** The peer understands `askToSuspend`. */
  readonly canSuspend: boolean;
  /** Sends `FRAME.suspend`. */
  askToSuspend(stream: H2Stream): void;
  /** Sends RST_STREAM and forgets the stream; also takes back a request that was not sent yet. */
  reset(stream: H2Stream, code: number): void;
  /** Both halves are over on the wire. */
  release(stream: H2Stream): void;
  /** The receiver took `bytes`: they may be sent again. */
  credit(stream: H2Stream, bytes: number, wasParked: boolean): void;
  /** `bytes` wait in the inbox of a paused stream. */
  parked(bytes: number): void;
}
