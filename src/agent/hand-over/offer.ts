/** One offer of the agent that leaves, from the request for it to the moment when it is ours. */
import { MeshError } from '../../base/errors.ts';
import type { Departed } from '../../proxy/departure.ts';
import { descriptorsOf, type Inheritance, type InheritedListener } from '../../proxy/inheritance.ts';
import type { ClaimedStream } from '../../proxy/settings.ts';
import { closeFd } from '../../sys/duplicate.ts';
import type { FdMessage } from '../../sys/unix-contract.ts';
import { ConnectionPackets } from './packets.ts';
import { decodeReply, type Reply, type Request } from './protocol.ts';

export interface Received {
  readonly reply: Reply;
  readonly fds: readonly number[];
}

/** To the agent that offers. Answers come in order, those to one request after the other. */
export interface OfferChannel {
  send(request: Request): Promise<void>;
  receive(): Promise<Received>;
}

type Offered = Extract<Reply, { type: 'offered' }>;
export type Offer = Inheritance & Departed & { readonly said: Offered };

/** Ours from now on; rejects with `CV-HAND-OVER` and holds nothing when the other agent is gone. */
export async function takeOffer(channel: OfferChannel, request: Request & { readonly pod: string }): Promise<Offer> {
  const listeners: InheritedListener[] = [];
  const packets = new ConnectionPackets();
  const { connections } = packets;
  try {
    await channel.send(request);
    const said = await receiveParts(channel, listeners, packets);
    // Nothing may flow before the other agent has let go of its copies: two owners would tear the bytes apart.
    await channel.send({ type: 'accept', pod: request.pod });
    const { reply } = await channel.receive();
    if (reply.type !== 'given') throw outOfTurn(reply);
    return { listeners, connections, isLast: said.isLast, said };
  } catch (error) {
    for (const fd of descriptorsOf({ listeners, connections })) closeFd(fd);
    throw error;
  }
}

/** Until the offer is whole. */
async function receiveParts(
  channel: OfferChannel,
  listeners: InheritedListener[],
  packets: ConnectionPackets,
): Promise<Offered> {
  for (;;) {
    const { reply, fds } = await channel.receive();
    if (reply.type === 'listener') {
      listeners.push({ port: reply.port, fd: fds[0] ?? -1 });
    } else if (reply.type === 'connections' || reply.type === 'bytes') {
      packets.add(reply, fds);
    } else if (reply.type === 'offered') {
      if (reply.listeners !== listeners.length || reply.connections !== packets.connections.length)
        throw outOfTurn(reply);
      return reply;
    } else {
      for (const fd of fds) closeFd(fd);
      throw reply.type === 'refused' ? refusedBy(reply.reason) : outOfTurn(reply);
    }
  }
}

/** What the answer to a `claim` says. */
export function claimIn({ connections: [found], said }: Offer): ClaimedStream {
  return found ?? said.missing ?? 'later';
}

/** Its descriptors are the caller's. */
export function receivedOf({ data, fds }: FdMessage): Received {
  const reply = decodeReply(data);
  return { reply, fds: Array.from({ length: fds.count }, () => fds.take()).filter((fd) => fd !== undefined) };
}

export function refusedBy(reason: string): MeshError {
  return new MeshError('CV-HAND-OVER', `the running agent refuses: ${reason}`);
}

export function outOfTurn({ type }: Reply): MeshError {
  return new MeshError('CV-HAND-OVER', `the running agent answered out of turn: ${type}`);
}
