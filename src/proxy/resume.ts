/** Connections that another process of this node carried until now: judged again, then relayed on. */
import type net from 'node:net';
import { backoffMs } from '../base/backoff.ts';
import { delay } from '../base/clock.ts';
import { MeshError, toMeshError } from '../base/errors.ts';
import { formatHostPort } from '../base/ip.ts';
import { reasonOf } from '../base/reasons.ts';
import { POLICY_CHANGED } from '../model/inbound-verdict.ts';
import type { InboundQuestion, Refusal } from '../model/verdict.ts';
import { adoptTcp, resetSocket } from '../sys/tcp.ts';
import type { ConnectionStart } from '../telemetry/traffic.ts';
import type { TunnelPool } from './connect.ts';
import { Connection } from './connection.ts';
import type { InheritedConnection, InheritedPair, InheritedStream, WayBack } from './inheritance.ts';
import { refusalOf } from './operator-text.ts';
import type { PodContext } from './pod-context.ts';
import { type OpenWayBack, ResumableTunnel } from './resumable-tunnel.ts';

/**
 * Pods are taken over one after the other: the one that calls may follow the one that it called. A minute at least, and longer
 * where there is no CPU to take it over.
 */
const NEIGHBOUR_MOST_LOOKS = 300;
/** From look to look, longer each time: thousands may wait. */
const NEIGHBOUR_LOOKS = { firstMs: 2, maxMs: 200, jitter: 0 } as const;

/** What is asked about an inbound connection beside its addresses. */
type AskedAgain = Pick<InboundQuestion, 'hbone' | 'isSameNode'>;

/**
 * Owns the descriptors. Nothing flows before the verdict, which may have changed. `pool` is for streams whose client side is
 * here. Rejects only by a defect.
 */
export async function resumeConnection(
  context: PodContext,
  pool: TunnelPool | undefined,
  connection: InheritedConnection,
): Promise<void> {
  if ('tunnel' in connection) await resumeStream(context, pool, connection);
  else if (connection.outbound !== undefined) await resumeShortCut(context, connection, connection.outbound);
  else await resumePair(context, connection);
}

async function resumePair(context: PodContext, { sockets, ...paused }: InheritedPair): Promise<void> {
  const { start } = paused;
  const downstream = adoptTcp(context.deps.sys, sockets.downstream);
  const upstream = adoptOther(context, sockets.upstream, downstream);
  context.hold(downstream, start.direction);
  if ((await refusalOfNow(context, start)) !== undefined) {
    resetSocket(downstream);
    resetSocket(upstream);
    return;
  }
  context.open(start, context.streamOf(downstream), releaseOf(context, start)).join(context.streamOf(upstream));
  countMoved(context, paused);
}

/**
 * The pod that was called judges again, by the identity of the one that calls. `own` is one of the two. From another process
 * it is the one that was called, and the other may be taken over later; from another thread it may be either, and both are here.
 */
async function resumeShortCut(
  own: PodContext,
  { sockets, ...paused }: InheritedPair,
  outboundStart: ConnectionStart,
): Promise<void> {
  const { telemetry, sys, neighbour } = own.deps;
  const { start } = paused;
  const downstream = adoptTcp(sys, sockets.downstream);
  const upstream = adoptOther(own, sockets.upstream, downstream);
  own.hold(downstream, 'outbound');
  const giveUp = (): void => {
    telemetry.open(outboundStart).close();
    resetSocket(downstream);
    resetSocket(upstream);
  };
  const context = start.podUid === own.pod.uid ? own : neighbour?.(start.podUid);
  if (context === undefined) {
    telemetry
      .open(start)
      .close(refusalOf(new MeshError('CV-DRAIN', 'the pod that was called is not served here any more')));
    giveUp();
    return;
  }
  if ((await refusalOfNow(context, start, shortCutQuestion(start, outboundStart))) !== undefined) {
    giveUp();
    return;
  }
  const stream = context.streamOf(downstream);
  const inbound = context.open(start, stream, releaseOf(context, start));
  const source = await neighbourOf(context, outboundStart.podUid);
  if (source === undefined) inbound.close(new MeshError('CV-DRAIN', 'the pod that called is not served here any more'));
  if (source === undefined || inbound.isOver) {
    giveUp();
    return;
  }
  Connection.joinBoth(source.open(outboundStart, stream), inbound, context.streamOf(upstream));
  for (const each of [start, outboundStart]) countMoved(context, { ...paused, start: each });
}

function shortCutQuestion({ dst }: ConnectionStart, { labels }: ConnectionStart): AskedAgain {
  const identity = labels.source?.identity;
  const hbone = { authority: formatHostPort(dst), ...(identity !== undefined && { peerIdentity: identity }) };
  return { hbone, isSameNode: true };
}

/** `undefined`: it did not come in time. */
async function neighbourOf({ deps }: PodContext, podUid: string): Promise<PodContext | undefined> {
  for (let look = 0; ; look++) {
    const found = deps.neighbour?.(podUid);
    if (found !== undefined || look === NEIGHBOUR_MOST_LOOKS) return found;
    await delay(deps.clock, backoffMs(NEIGHBOUR_LOOKS, look, deps.random));
  }
}

async function resumeStream(
  context: PodContext,
  pool: TunnelPool | undefined,
  { socket, tunnel: { token, wayBack, toApp, toTunnel }, ...paused }: InheritedStream,
): Promise<void> {
  const { start } = paused;
  const app = adoptTcp(context.deps.sys, socket);
  if (start.direction === 'outbound') context.hold(app, 'outbound');
  const question = wayBack.kind === 'wait' ? wayBack.question : undefined;
  const refusal = await refusalOfNow(context, start, question && { hbone: question });
  if (refusal !== undefined) {
    context.parked.refuse(token, new MeshError(refusal.code, refusal.text));
    resetSocket(app);
    return;
  }
  const tunnel = new ResumableTunnel(context, {
    id: start.id,
    token,
    wayBack: openWayBack(wayBack, pool),
    from: { toApp, toTunnel },
    onResumed: () => countMoved(context, paused),
  });
  if (wayBack.kind === 'ask') context.open(start, context.streamOf(app)).join(tunnel.stream, tunnel);
  else context.open(start, tunnel.stream, releaseOf(context, start)).join(context.streamOf(app), tunnel);
  if (!tunnel.stream.isClosed) tunnel.seek();
}

function countMoved(
  { deps }: PodContext,
  { start, pausedAtMs }: Pick<InheritedConnection, 'start' | 'pausedAtMs'>,
): void {
  deps.telemetry.moved(start, Math.max(0, deps.clock.wallMs() - pausedAtMs));
}

function openWayBack(wayBack: WayBack, pool: TunnelPool | undefined): OpenWayBack {
  if (wayBack.kind === 'wait') return wayBack;
  if (pool === undefined) throw new MeshError('CV-BUG', 'a client of a tunnel without a pool');
  return { ...wayBack, pool };
}

/** Inbound connections are judged by the mesh of now. A refusal is logged here. */
async function refusalOfNow(
  context: PodContext,
  start: ConnectionStart,
  asked: AskedAgain = {},
): Promise<Refusal | undefined> {
  if (start.direction === 'outbound') return undefined;
  const verdict = await context.judgeOpen({ connectionId: start.id, peer: start.src, local: start.dst, ...asked });
  if (verdict.kind === 'accept') return undefined;
  const refusal = refusalOfOpen(verdict.refusal);
  context.refuse({ start, refusal, labels: start.labels });
  return refusal;
}

function releaseOf(context: PodContext, { direction }: ConnectionStart): PodContext['release'] | undefined {
  return direction === 'inbound' ? context.release : undefined;
}

/** What a policy forbids was allowed before. */
function refusalOfOpen(refusal: Refusal): Refusal {
  return reasonOf(refusal.code).fault === 'policy' ? POLICY_CHANGED : refusal;
}

function adoptOther(context: PodContext, fd: number, first: net.Socket): net.Socket {
  try {
    return adoptTcp(context.deps.sys, fd);
  } catch (error) {
    resetSocket(first);
    throw toMeshError(error);
  }
}
