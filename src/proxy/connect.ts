/** One CONNECT stream of a pooled tunnel: the request, its answer, and the one retry that is safe. */
import { withDeadline } from '../base/clock.ts';
import { MeshError, toMeshError } from '../base/errors.ts';
import type { ReasonCode } from '../base/reasons.ts';
import type { TunnelRoute } from '../model/verdict.ts';
import type { ClientPool } from '../tunnel/client-pool.ts';
import type { H2Stream } from '../tunnel/h2-stream.ts';
import { isUnprocessed } from '../tunnel/h2-stream-errors.ts';
import type { ResponseHead } from '../wire/h2-head.ts';
import { isGoneAnswer } from '../wire/resume.ts';
import { formatTraceParent, newTraceParent } from '../wire/traceparent.ts';
import type { PodContext } from './pod-context.ts';
import type { ConnectRequest } from './tunnels.ts';

export type TunnelPool = ClientPool<ConnectRequest, H2Stream>;
export type ConnectHeaders = ConnectRequest['headers'];

export interface AnsweredStream {
  readonly stream: H2Stream;
  readonly answer: ResponseHead;
}

/** Headers of every CONNECT made for one connection, the trace among them. */
export function connectHeaders({ deps }: PodContext, { baggage, forwarded }: TunnelRoute): ConnectHeaders {
  return { baggage, forwarded, traceparent: formatTraceParent(newTraceParent(deps.random)) };
}

/**
 * A stream whose CONNECT was answered with 200. Any other answer is final: no retry, no other endpoint. What the peer
 * refused unseen, because it stops or is full, is asked once more on another tunnel.
 */
export async function openStream(
  context: PodContext,
  pool: TunnelPool,
  route: TunnelRoute,
  headers: ConnectHeaders,
): Promise<AnsweredStream> {
  const request: ConnectRequest = { authority: route.authority, headers };
  const { stream, tunnel } = await pool.request(route, request);
  try {
    return { stream, answer: await answerOf(context, stream) };
  } catch (error) {
    if (!isUnprocessed(toMeshError(error))) throw error;
  }
  const again = await pool.request(route, request, tunnel);
  return { stream: again.stream, answer: await answerOf(context, again.stream) };
}

/** The answer to the CONNECT of `stream` when it is 200. Otherwise rejects, and the stream is gone. */
export async function answerOf({ deps, settings }: PodContext, stream: H2Stream): Promise<ResponseHead> {
  try {
    const late = (): MeshError => new MeshError('CV-CONNECT-TIMEOUT', 'no answer to CONNECT: deadline has elapsed');
    const answer = await withDeadline(stream.response, deps.clock, settings.responseTimeoutMs, late);
    if (answer.status === 200) return answer;
    throw isGoneAnswer(answer.headers) ? streamGone() : statusError(answer.status);
  } catch (error) {
    stream.destroy();
    throw error;
  }
}

/** What it wanted to go on with has ended there; said so too by who has not got it yet, in rare moments. */
function streamGone(): MeshError {
  return new MeshError('CV-RESUME-UNKNOWN', 'the other end of the stream is not there any more');
}

const STATUS_TEXT: Readonly<Record<number, string>> = {
  400: 'Bad Request',
  401: 'Unauthorized',
  403: 'Forbidden',
  404: 'Not Found',
  500: 'Internal Server Error',
  502: 'Bad Gateway',
  503: 'Service Unavailable',
  504: 'Gateway Timeout',
};

/** What a connection ends with whose CONNECT was answered so. */
export function statusError(status: number): MeshError {
  const text = STATUS_TEXT[status];
  return new MeshError(codeOfStatus(status), `http status: ${status}${text === undefined ? '' : ` ${text}`}`);
}

function codeOfStatus(status: number): ReasonCode {
  if (status === 401 || status === 403) return 'CV-CONNECT-DENIED';
  return status === 400 ? 'CV-CONNECT-REJECTED' : 'CV-CONNECT-FAILED';
}
