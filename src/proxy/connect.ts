/** One CONNECT stream of a pooled tunnel: the request, its answer, and the one retry that is safe. */
import { withDeadline } from '../base/clock.ts';
import { MeshError, toMeshError } from '../base/errors.ts';
import type { ReasonCode } from '../base/reasons.ts';
import type { OutboundVerdict } from '../model/verdict.ts';
import type { ClientPool } from '../tunnel/client-pool.ts';
import type { H2Stream } from '../tunnel/h2-stream.ts';
import { isUnprocessed } from '../tunnel/h2-stream-errors.ts';
import { formatTraceParent, newTraceParent } from '../wire/traceparent.ts';
import type { PodContext } from './pod-context.ts';
import type { ConnectRequest } from './tunnels.ts';

export type TunnelPool = ClientPool<ConnectRequest, H2Stream>;
type HboneVerdict = Extract<OutboundVerdict, { kind: 'hbone' }>;

/**
 * A stream whose CONNECT was answered with 200. Any other answer is final: no retry, no other endpoint. What the peer
 * refused unseen, because it stops or is full, is asked once more on another tunnel.
 */
export async function openStream(context: PodContext, pool: TunnelPool, verdict: HboneVerdict): Promise<H2Stream> {
  const request: ConnectRequest = {
    authority: verdict.authority,
    headers: {
      baggage: verdict.baggage,
      forwarded: verdict.forwarded,
      traceparent: formatTraceParent(newTraceParent(context.deps.random)),
    },
  };
  const { stream, tunnel } = await pool.request(verdict, request);
  try {
    return await answered(context, stream);
  } catch (error) {
    if (!isUnprocessed(toMeshError(error))) throw error;
  }
  const again = await pool.request(verdict, request, tunnel);
  return await answered(context, again.stream);
}

async function answered({ deps, settings }: PodContext, stream: H2Stream): Promise<H2Stream> {
  try {
    const late = (): MeshError => new MeshError('CV-CONNECT-TIMEOUT', 'no answer to CONNECT: deadline has elapsed');
    const response = await withDeadline(stream.response, deps.clock, settings.responseTimeoutMs, late);
    if (response.status !== 200) throw statusError(response.status);
    return stream;
  } catch (error) {
    stream.destroy();
    throw error;
  }
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

function statusError(status: number): MeshError {
  const text = STATUS_TEXT[status];
  return new MeshError(codeOfStatus(status), `http status: ${status}${text === undefined ? '' : ` ${text}`}`);
}

function codeOfStatus(status: number): ReasonCode {
  if (status === 401 || status === 403) return 'CV-CONNECT-DENIED';
  return status === 400 ? 'CV-CONNECT-REJECTED' : 'CV-CONNECT-FAILED';
}
