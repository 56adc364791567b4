/** RST_STREAM codes and errors of the application side, both ways (datapath facts §1.9; RFC 9113 §7, §8.5). */
import { MeshError } from '../base/errors.ts';
import { H2, h2CodeName } from '../wire/h2-protocol.ts';

/** A broken TCP connection is CONNECT_ERROR. Everything else we decide ourselves is CANCEL, as in the reference. */
export function resetCodeOf(error: MeshError | undefined): number {
  if (error?.code === 'CV-IO') return H2.connectError;
  return error?.code === 'CV-BUG' ? H2.internalError : H2.cancel;
}

/** Reads as the end of the peer's half, after what it sent before. */
export function isOrderlyReset(code: number): boolean {
  return code === H2.noError || code === H2.cancel;
}

/** How TCP connections end every day is no error, unless a request of ours is still without an answer. */
export function resetError(code: number, isUnanswered: boolean): MeshError | undefined {
  const isOrdinary = isOrderlyReset(code) || code === H2.streamClosed || code === H2.connectError;
  if (isOrdinary && !isUnanswered) return undefined;
  const message = `peer reset the stream: ${h2CodeName(code)}`;
  return new MeshError(isUnanswered ? 'CV-CONNECT-FAILED' : 'CV-TUNNEL-CLOSED', message, { h2Code: code });
}

export function unansweredError(): MeshError {
  return new MeshError('CV-TUNNEL-CLOSED', 'the stream ended before the answer');
}
