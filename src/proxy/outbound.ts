/** Outbound: what the pod dials, sent on in clear or through tunnels as the verdict says. */
import type net from 'node:net';
import { toMeshError } from '../base/errors.ts';
import { formatHostPort, type HostPort } from '../base/ip.ts';
import type { ReasonCode } from '../base/reasons.ts';
import type { OutboundVerdict, TunnelRoute } from '../model/verdict.ts';
import { resetSocket, socketFd } from '../sys/tcp.ts';
import type { ByteStream } from '../tunnel/byte-stream.ts';
import { RESUME_OFFER, readOfferAnswer } from '../wire/resume.ts';
import { connectHeaders, openStream, type TunnelPool } from './connect.ts';
import { openDoubleStream } from './double-tunnel.ts';
import type { PodContext } from './pod-context.ts';
import { ResumableTunnel } from './resumable-tunnel.ts';
import { carryShort, shortCutFor } from './short-cut.ts';

type Carried = Exclude<OutboundVerdict, { kind: 'refuse' }>;
type DoubleVerdict = Extract<OutboundVerdict, { kind: 'double-hbone' }>;
type DirectVerdict = Exclude<Carried, DoubleVerdict>;

/** One connection that an application wants. */
export interface OutboundCall {
  readonly id: string;
  readonly socket: net.Socket;
  readonly client: HostPort;
  readonly target: HostPort;
  /** Told once whether the way is open, or why it is not, before anything is relayed or closed. */
  readonly answer?: (refused: ReasonCode | undefined) => void;
}

/** Port 15001: carries or refuses one accepted socket. Rejects only by a defect. */
export async function serveOutbound(context: PodContext, pool: TunnelPool, socket: net.Socket): Promise<void> {
  const ends = context.endsOf(socket);
  if (ends === undefined) {
    resetSocket(socket);
    return;
  }
  const fd = socketFd(socket);
  const target = (fd === undefined ? undefined : context.deps.sys.originalDestination(fd)) ?? ends.local;
  await carryOutbound(context, pool, { id: context.nextId(), socket, client: ends.peer, target });
}

/** Carries or refuses. Nothing is read from the socket before the way is open. Rejects only by a defect. */
export async function carryOutbound(context: PodContext, pool: TunnelPool, call: OutboundCall): Promise<void> {
  const verdict = await judge(context, call);
  switch (verdict.kind) {
    case 'refuse': {
      const { id, client, target } = call;
      context.refuse({ start: { id, direction: 'outbound', protocol: 'TCP', src: client, dst: target }, ...verdict });
      call.answer?.(verdict.refusal.code);
      resetSocket(call.socket);
      return;
    }
    case 'double-hbone':
      await carryFar(context, pool, call, verdict);
      return;
    case 'plaintext':
      await carry(context, pool, call, verdict);
      return;
    case 'hbone': {
      const shortCut = shortCutFor(context, verdict);
      if (shortCut === undefined) await carry(context, pool, call, verdict);
      else await carryShort(context, call, verdict, shortCut);
    }
  }
}

async function judge(context: PodContext, { client, target }: OutboundCall): Promise<OutboundVerdict> {
  if (context.isFull) return context.tooMany();
  try {
    await context.turn();
    const { verdicts } = context.deps;
    const verdict = await context.connections.arrive(verdicts.outbound({ podUid: context.pod.uid, client, target }));
    context.share.enter();
    return verdict;
  } catch (error) {
    return { kind: 'refuse', refusal: context.refusalFor(error) };
  }
}

async function carry(context: PodContext, pool: TunnelPool, call: OutboundCall, verdict: DirectVerdict): Promise<void> {
  const connection = context.open(startOf(call, verdict), context.streamOf(call.socket));
  try {
    const { stream, tunnel } = await upstreamOf(context, pool, call.id, verdict);
    call.answer?.(undefined);
    connection.join(stream, tunnel);
  } catch (error) {
    const failure = toMeshError(error);
    call.answer?.(context.refusalFor(failure).code);
    connection.close(failure);
  }
}

interface Upstream {
  readonly stream: ByteStream;
  /** When the stream can leave its tunnel. */
  readonly tunnel?: ResumableTunnel;
}

async function upstreamOf(
  context: PodContext,
  pool: TunnelPool,
  id: string,
  verdict: DirectVerdict,
): Promise<Upstream> {
  switch (verdict.kind) {
    case 'plaintext':
      return { stream: context.streamOf(await context.dial(verdict.address)) };
    case 'hbone':
      return await tunnelOf(context, pool, id, verdict);
  }
}

async function tunnelOf(context: PodContext, pool: TunnelPool, id: string, route: TunnelRoute): Promise<Upstream> {
  const headers = { ...connectHeaders(context, route), ...RESUME_OFFER };
  const { stream, answer } = await openStream(context, pool, route, headers);
  const token = readOfferAnswer(answer.headers);
  if (token === undefined) return { stream };
  const tunnel = new ResumableTunnel(context, { id, token, wayBack: { kind: 'ask', route, pool }, from: stream });
  return { stream: tunnel.stream, tunnel };
}

/** The record of a connection to another network waits for the answer from there: only that says who serves. */
async function carryFar(
  context: PodContext,
  pool: TunnelPool,
  call: OutboundCall,
  verdict: DoubleVerdict,
): Promise<void> {
  const { clock } = context.deps;
  const startedMs = clock.monotonicMs();
  const opening = openDoubleStream(context, pool, verdict);
  const far = await context.connections.arrive(opening).catch(toMeshError);
  const start = { ...startOf(call, verdict), setupMs: clock.monotonicMs() - startedMs };
  if (far instanceof Error) {
    // The pod may have left meanwhile; a way that opens after all is used by nobody.
    opening.then(({ stream }) => stream.destroy(far), ignore);
    const refusal = context.refusalFor(far);
    context.refuse({ start, refusal, labels: start.labels });
    call.answer?.(refusal.code);
    resetSocket(call.socket);
    return;
  }
  call.answer?.(undefined);
  const labels = { ...start.labels, destination: far.destination };
  context.open({ ...start, labels }, context.streamOf(call.socket)).join(far.stream);
}

function startOf({ id, client, target }: OutboundCall, verdict: Carried) {
  return {
    id,
    direction: 'outbound' as const,
    protocol: PROTOCOLS[verdict.kind],
    src: client,
    dst: verdict.address,
    originalDst: formatHostPort(target),
    ...(verdict.kind === 'plaintext' ? {} : { hboneAuthority: verdict.authority }),
    labels: verdict.labels,
  };
}

const PROTOCOLS = { plaintext: 'TCP', hbone: 'HBONE', 'double-hbone': 'DOUBLEHBONE' } as const;

function ignore(): void {}
