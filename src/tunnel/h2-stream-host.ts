/** What a stream of an HBONE session, and each of its halves, needs of its session. */
import type { H2ReceiveHalf } from './h2-receive-half.ts';
import type { H2SendHalf } from './h2-send-half.ts';
import type { H2Stream } from './h2-stream.ts';

/** Header names in lower case; text of Latin-1. */
export type OutgoingHeaders = Readonly<Record<string, string | readonly string[]>>;

export interface SendHost {
  /** Frames what may go out now; returns how many octets. */
  sendNow(half: H2SendHalf, chunk: Uint8Array): number;
  /** After all of a chunk of `bytes` was framed. False: the writer should wait. */
  mayGoOn(half: H2SendHalf, bytes: number): boolean;
  /** `bytes` joined the outbox. False: the writer should wait. */
  queued(half: H2SendHalf, bytes: number): boolean;
  /** `bytes` left the outbox unsent. */
  dropped(half: H2SendHalf, bytes: number): void;
  sendEnd(half: H2SendHalf, trailers: OutgoingHeaders | undefined): void;
}

export interface ReceiveHost {
  /** Chunks are valid during `receive` only. */
  readonly isLending: boolean;
  /** The receiver took `bytes`: they may be sent again. */
  credit(half: H2ReceiveHalf, bytes: number, wasParked: boolean): void;
  /** `bytes` wait in the inbox of a paused stream. */
  parked(bytes: number): void;
}

export interface StreamHost extends SendHost, ReceiveHost {
  /** Sends response HEADERS. */
  sendResponse(stream: H2Stream, status: number, headers: OutgoingHeaders, isEnd: boolean): void;
  /** The peer understands `askToSuspend`. */
  readonly canSuspend: boolean;
  /** Sends `FRAME.suspend`. */
  askToSuspend(stream: H2Stream): void;
  /** Sends RST_STREAM and forgets the stream; also takes back a request that was not sent yet. */
  reset(stream: H2Stream, code: number): void;
  /** Both halves are over on the wire. */
  release(stream: H2Stream): void;
}
