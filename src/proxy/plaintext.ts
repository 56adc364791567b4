/** Inbound plaintext, port 15006: clients outside the mesh, judged without an identity. */
import type net from 'node:net';
import { toMeshError } from '../base/errors.ts';
import { resetSocket, socketFd } from '../sys/tcp.ts';
import type { PodContext } from './pod-context.ts';

/** Carries or refuses one accepted socket. Rejects only by a defect. */
export async function servePlaintext(context: PodContext, socket: net.Socket): Promise<void> {
  const ends = context.endsOf(socket);
  if (ends === undefined) {
    resetSocket(socket);
    return;
  }
  const { deps } = context;
  const fd = socketFd(socket);
  const dst = (fd === undefined ? undefined : deps.sys.originalDestination(fd)) ?? ends.local;
  const start = { id: context.nextId(), direction: 'inbound', protocol: 'TCP', src: ends.peer, dst } as const;

  const verdict = await context.judge({ connectionId: start.id, peer: ends.peer, local: dst });
  if (verdict.kind === 'refuse') {
    context.refuse({ start, ...verdict });
    resetSocket(socket);
    return;
  }
  const stream = context.streamOf(socket);
  const connection = context.open({ ...start, labels: verdict.labels }, stream, context.release);
  try {
    connection.join(context.streamOf(await context.dial(verdict.address, verdict.sourceIp)));
  } catch (error) {
    const failure = toMeshError(error);
    context.refusalFor(failure);
    connection.close(failure);
  }
}
