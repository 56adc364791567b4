/** RST_STREAM codes and errors of the application side, both ways (RFC 9113 §7, §8.5). */
import { MeshError } from '../base/errors.ts';
import { H2, h2CodeName } from '../wire/h2-protocol.ts';

/**
 * A connection that is cut, by its application or by us, is CONNECT_ERROR; nobody needs it any more is CANCEL. The
 * reference says CANCEL for both, which the other side must read as an orderly end: a cut answer looks complete.
 */
export function resetCodeOf(error: MeshError | undefined): number {
  if (error === undefined) return H2.cancel;
  return error.code === 'CV-BUG' ? H2.internalError : H2.connectError;
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
  const isUnprocessed = code === H2.refusedStream;
  return new MeshError(isUnanswered ? 'CV-CONNECT-FAILED' : 'CV-TUNNEL-CLOSED', message, {
    h2Code: code,
    ...(isUnprocessed && { isUnprocessed }),
  });
}

/** The peer has done nothing for the request and never will: it may be sent again, elsewhere (RFC 9113 §8.7). */
export function isUnprocessed(error: MeshError): boolean {
  return error.fields['isUnprocessed'] === true;
}
