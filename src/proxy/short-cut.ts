/**
 * The same-node short cut: from an application in one captured pod to one in another of this agent, without a tunnel.
 * Both pods judge and count it as if there were one: the destination is asked what the CONNECT would have asked, with the
 * identity of the pod whose listener accepted the connection.
 */
import { MeshError, toMeshError } from '../base/errors.ts';
import { formatHostPort } from '../base/ip.ts';
import { reasonOf } from '../base/reasons.ts';
import type { InboundQuestion, InboundVerdict, OutboundVerdict, SameNodeRoute } from '../model/verdict.ts';
import type { SocketStream } from '../tunnel/socket-stream.ts';
import { parseForwardedHost } from '../wire/forwarded.ts';
import { encodeProxyV2 } from '../wire/proxy-v2.ts';
import { statusError } from './connect.ts';
import { Connection } from './connection.ts';
import type { OutboundCall } from './outbound.ts';
import type { PodContext } from './pod-context.ts';

type HboneVerdict = Extract<OutboundVerdict, { kind: 'hbone' }>;
type Accept = Extract<InboundVerdict, { kind: 'accept' }>;

export interface ShortCut extends SameNodeRoute {
  readonly destination: PodContext;
}

/** The way without a tunnel, when there is one now: that pod is served by this thread, and the address really is its own. */
export function shortCutFor({ deps }: PodContext, { sameNode }: HboneVerdict): ShortCut | undefined {
  const destination = sameNode && deps.neighbour?.(sameNode.podUid);
  if (sameNode === undefined || destination === undefined) return undefined;
  return isOwnAddress(destination, sameNode.address.ip) ? { ...sameNode, destination } : undefined;
}

/** A record that is out of date must not lead out of the pod, in clear. What cannot be found out is no. */
function isOwnAddress({ pod, deps }: PodContext, ip: string): boolean {
  try {
    return deps.sys.isOwnAddress(pod.netns, ip);
  } catch {
    return false;
  }
}

/** Carries or refuses. Nothing is read from the socket before the way is open. Rejects only by a defect. */
export async function carryShort(
  context: PodContext,
  call: OutboundCall,
  verdict: HboneVerdict,
  { destination, address }: ShortCut,
): Promise<void> {
  const stream = context.streamOf(call.socket);
  const common = { protocol: 'SAMENODE', src: call.client, dst: address } as const;
  const labels = { ...verdict.labels, securityPolicy: 'same_node' } as const;
  const originalDst = formatHostPort(call.target);
  const outbound = context.open({ ...common, id: call.id, direction: 'outbound', originalDst, labels }, stream);
  const id = destination.nextId();
  const start = { ...common, id, direction: 'inbound', ...forwardedTo(verdict) } as const;
  try {
    const answer = await destination.judge(questionOf(id, call, verdict));
    if (answer.kind === 'refuse') {
      destination.refuse({ start, ...answer });
      throw statusError(reasonOf(answer.refusal.code).status);
    }
    const inbound = destination.open({ ...start, labels: answer.labels }, stream, destination.release);
    const app = await dialApp(destination, { outbound, inbound }, answer).catch(toMeshError);
    if (app instanceof MeshError) {
      destination.refusalFor(app);
      const failure = statusError(reasonOf(app.code).status);
      // First, as either close is that of the socket of both.
      call.answer?.(failure.code);
      inbound.close(app);
      outbound.close(failure);
      return;
    }
    call.answer?.(undefined);
    Connection.joinBoth(outbound, inbound, app);
  } catch (error) {
    const failure = toMeshError(error);
    call.answer?.(context.refusalFor(failure).code);
    outbound.close(failure);
  }
}

/** What the destination would have read from a certificate is what the source would have proved with it. */
function questionOf(id: string, { client }: OutboundCall, verdict: HboneVerdict): Omit<InboundQuestion, 'podUid'> {
  const { address, identity, authority, forwarded, baggage } = verdict;
  const hbone = { peerIdentity: identity, authority, forwarded, baggage: [baggage] };
  return { connectionId: id, peer: client, local: address, isSameNode: true, hbone };
}

interface Both {
  readonly outbound: Connection;
  readonly inbound: Connection;
}

async function dialApp(destination: PodContext, { outbound, inbound }: Both, accepted: Accept): Promise<SocketStream> {
  if (outbound.isOver) throw new MeshError('CV-TUNNEL-CLOSED', 'the client gave up before it was answered');
  const preface = accepted.proxyHeader && encodeProxyV2(accepted.proxyHeader);
  const app = await destination.dial(accepted.address, accepted.sourceIp);
  if (preface !== undefined && !inbound.isOver) app.write(preface);
  return destination.streamOf(app);
}

/** The service that the application dialled, as the `forwarded` header says it. */
function forwardedTo({ forwarded }: HboneVerdict): { readonly originalDst?: string } {
  const host = parseForwardedHost(forwarded);
  return host === undefined ? {} : { originalDst: host };
}
