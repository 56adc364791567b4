/** One connection to a CNI agent: says hello, then answers one request after the other. */
import type { Clock } from '../base/clock.ts';
import { MeshError, messageOf, toMeshError } from '../base/errors.ts';
import type { FdMessage, UnixSocket } from '../sys/unix-contract.ts';
import { decodeRequest, encodeAck, encodeHello, MAX_ZDS_BYTES, type ZdsRequest } from '../wire/zds.ts';
import type { ZdsPods } from './zds-pods.ts';

/** A CNI agent sends its snapshot at once; one that hangs is left, so that its successor finds us. */
const FIRST_REQUEST_WITHIN_MS = 30_000;

export type ZdsMessageKind = ZdsRequest['kind'] | 'unreadable';

export interface ZdsSessionDeps {
  readonly clock: Clock;
  readonly pods: ZdsPods;
  /** Once per request, with whether the answer was yes. */
  readonly onRequest: (kind: ZdsMessageKind, result: 'ok' | 'refused') => void;
}

/** Serves `socket` until it ends, which is always a rejection with the reason. */
export async function serveZds(socket: UnixSocket, deps: ZdsSessionDeps): Promise<never> {
  await socket.send(encodeHello());
  let next = await firstRequest(socket, deps.clock);
  for (;;) {
    if (next === undefined) throw new MeshError('CV-ZDS', 'the CNI agent closed the connection');
    await answer(socket, next, deps);
    next = await socket.receive(MAX_ZDS_BYTES);
  }
}

async function firstRequest(socket: UnixSocket, clock: Clock): Promise<FdMessage | undefined> {
  const late = new AbortController();
  const seconds = FIRST_REQUEST_WITHIN_MS / 1_000;
  using _deadline = clock.after(FIRST_REQUEST_WITHIN_MS, () =>
    late.abort(new MeshError('CV-ZDS', `the CNI agent took the connection and said nothing for ${seconds} s`)),
  );
  return await socket.receive(MAX_ZDS_BYTES, late.signal);
}

interface Outcome {
  readonly kind: ZdsMessageKind;
  /** Why not, as the CNI agent is told. */
  readonly nack?: string | undefined;
  /** The CNI agent and we disagree about the protocol: the connection ends for this. */
  readonly end?: MeshError;
}

async function answer(socket: UnixSocket, message: FdMessage, { pods, onRequest }: ZdsSessionDeps): Promise<void> {
  using _message = message;
  const { kind, nack, end } = await outcomeOf(message, pods);
  onRequest(kind, nack === undefined ? 'ok' : 'refused');
  const sent = socket.send(encodeAck(nack));
  if (end === undefined) return await sent;
  // Whether the other end hears it or not, this is why the connection ends.
  await sent.catch(() => {});
  throw end;
}

async function outcomeOf(message: FdMessage, pods: ZdsPods): Promise<Outcome> {
  let kind: ZdsMessageKind = 'unreadable';
  try {
    const request = readRequest(message);
    kind = request.kind;
    const error = await carryOut(request, message, pods);
    return { kind, nack: error && `failure to start proxy : ${error.message}` };
  } catch (caught) {
    const nack = `failure to ${kind === 'unreadable' ? 'read' : 'process'} message : ${messageOf(caught)}`;
    const isOurs = !(caught instanceof MeshError);
    return { kind, nack, end: isOurs ? toMeshError(caught) : new MeshError('CV-ZDS', nack, {}, { cause: caught }) };
  }
}

/** Throws for what is no request, or came with other descriptors than it must. */
function readRequest({ data, fds, lost }: FdMessage): ZdsRequest {
  if (lost === 'data') throw new MeshError('CV-WIRE-TOO-LARGE', `a packet is over ${MAX_ZDS_BYTES} bytes`);
  if (lost === 'descriptors') {
    throw new MeshError('CV-SYS', 'no room for the descriptors of a packet; raise the limit of open files (ulimit -n)');
  }
  const request = decodeRequest(data);
  const wanted = request.kind === 'add' ? 1 : 0;
  if (fds.count === wanted) return request;
  const problem = `${request.kind} came with ${fds.count} descriptors instead of ${wanted}`;
  throw new MeshError('CV-WIRE-MALFORMED', problem, { problem });
}

/** What the CNI agent is told instead of yes. Throws for what the protocol does not allow. */
async function carryOut(request: ZdsRequest, { fds }: FdMessage, pods: ZdsPods): Promise<MeshError | undefined> {
  switch (request.kind) {
    case 'add': {
      const { uid, workload } = request;
      if (workload === undefined) throw new MeshError('CV-WIRE-MALFORMED', 'add without workload info', { uid });
      return await pods.add(uid, workload, fds.take() ?? -1);
    }
    case 'keep':
      pods.keep(request.uid);
      return undefined;
    case 'del':
      await pods.del(request.uid);
      return undefined;
    case 'snapshot-sent':
      pods.snapshotSent();
      return undefined;
  }
}
