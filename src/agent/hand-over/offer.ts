/** One offer of the agent that leaves, from the request for it to the moment when it is ours. */
import { MeshError } from '../../base/errors.ts';
import type { Departed } from '../../proxy/departure.ts';
import { descriptorsOf, type Inheritance, type InheritedListener } from '../../proxy/inheritance.ts';
import type { ClaimedStream } from '../../proxy/settings.ts';
import { closeFd } from '../../sys/duplicate.ts';
import type { FdMessage } from '../../sys/unix-contract.ts';
import { ConnectionPackets, socketsWith } from './packets.ts';
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
    const answer = await channel.receive();
    if (answer.reply.type !== 'given') throw outOfTurn(answer);
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
    const received = await channel.receive();
    const { reply, fds } = received;
    if (reply.type === 'listener') {
      listeners.push({ port: reply.port, fd: fds[0] ?? -1 });
    } else if (reply.type === 'connections' || reply.type === 'bytes') {
      packets.add(reply, fds);
    } else if (reply.type === 'offered') {
      if (reply.listeners !== listeners.length || reply.connections !== packets.connections.length)
        throw outOfTurn(received);
      return reply;
    } else throw outOfTurn(received);
  }
}

/** What the answer to a `claim` says. */
export function claimIn({ connections: [found], said }: Offer): ClaimedStream {
  return found ?? said.missing ?? 'later';
}

/** Its descriptors are the caller's, and as many as belong to it; else throws `CV-HAND-OVER`, and the message has them still. */
export function receivedOf({ data, fds }: FdMessage): Received {
  const reply = decodeReply(data);
  const most = descriptorsWith(reply);
  const least = reply.type === 'inherited' ? 0 : most;
  if (fds.count < least || fds.count > most) {
    throw new MeshError('CV-HAND-OVER', `the running agent sent ${fds.count} descriptors with ${reply.type}`);
  }
  return { reply, fds: Array.from({ length: fds.count }, () => fds.take()).filter((fd) => fd !== undefined) };
}

/** At most; only with `inherited` there may be none. */
function descriptorsWith(reply: Reply): number {
  if (reply.type === 'connections') return reply.connections.reduce((sum, one) => sum + socketsWith(one), 0);
  return reply.type === 'listener' || reply.type === 'left' || reply.type === 'inherited' ? 1 : 0;
}

/** Of what is not an answer to what was asked. Closes what came with it. */
export function outOfTurn({ reply, fds }: Received): MeshError {
  for (const fd of fds) closeFd(fd);
  if (reply.type === 'refused') return new MeshError('CV-HAND-OVER', `the running agent refuses: ${reply.reason}`);
  return new MeshError('CV-HAND-OVER', `the running agent answered out of turn: ${reply.type}`);
}
