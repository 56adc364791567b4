/** Outbound, port 15001: what the pod dials, sent on in clear or through a tunnel as the verdict says (datapath facts §4.2). */
import type net from 'node:net';
import { toMeshError } from '../base/errors.ts';
import { formatHostPort, type HostPort } from '../base/ip.ts';
import type { OutboundVerdict } from '../model/verdict.ts';
import { socketFd } from '../sys/tcp.ts';
import type { ByteStream } from '../tunnel/byte-stream.ts';
import { SocketStream } from '../tunnel/socket-stream.ts';
import { openStream, type TunnelPool } from './connect.ts';
import type { PodContext } from './pod-context.ts';

type Carried = Exclude<OutboundVerdict, { kind: 'refuse' }>;

/** Carries or refuses one accepted socket. Nothing is read from it before the way is open. Rejects only by a defect. */
export async function serveOutbound(context: PodContext, pool: TunnelPool, socket: net.Socket): Promise<void> {
  const ends = context.endsOf(socket);
  if (ends === undefined) {
    socket.destroy();
    return;
  }
  const fd = socketFd(socket);
  const target = (fd === undefined ? undefined : context.deps.sys.originalDestination(fd)) ?? ends.local;
  const id = context.nextId();

  const verdict = await judge(context, ends.peer, target);
  if (verdict.kind === 'refuse') {
    const start = { id, direction: 'outbound', protocol: 'TCP', src: ends.peer, dst: target } as const;
    context.refuse({ start, ...verdict });
    socket.destroy();
    return;
  }
  const connection = context.open(startOf(id, ends.peer, target, verdict), new SocketStream(socket));
  try {
    connection.join(await upstreamOf(context, pool, verdict));
  } catch (error) {
    const failure = toMeshError(error);
    context.refusalFor(failure);
    connection.close(failure);
  }
}

async function judge(context: PodContext, client: HostPort, target: HostPort): Promise<OutboundVerdict> {
  if (context.isFull) return context.tooMany();
  try {
    return await context.connections.arrive(
      context.deps.verdicts.outbound({ podUid: context.pod.uid, client, target }),
    );
  } catch (error) {
    return { kind: 'refuse', refusal: context.refusalFor(error) };
  }
}

function startOf(id: string, src: HostPort, target: HostPort, verdict: Carried) {
  return {
    id,
    direction: 'outbound' as const,
    protocol: verdict.kind === 'hbone' ? ('HBONE' as const) : ('TCP' as const),
    src,
    dst: verdict.address,
    originalDst: formatHostPort(target),
    ...(verdict.kind === 'hbone' ? { hboneAuthority: verdict.authority } : {}),
    labels: verdict.labels,
  };
}

async function upstreamOf(context: PodContext, pool: TunnelPool, verdict: Carried): Promise<ByteStream> {
  switch (verdict.kind) {
    case 'plaintext':
      return new SocketStream(await context.dial(verdict.address));
    case 'hbone':
      return await openStream(context, pool, verdict);
  }
}
