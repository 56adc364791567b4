/** An agent that starts on a node where another one serves: takes pod after pod from it, then the node (`README.md`). */
import type { Clock } from '../../base/clock.ts';
import { MeshError } from '../../base/errors.ts';
import type { Departed } from '../../proxy/departure.ts';
import { descriptorsOf, type Inheritance, type InheritedListener } from '../../proxy/inheritance.ts';
import { closeFd } from '../../sys/duplicate.ts';
import type { PassedFds } from '../../sys/unix-contract.ts';
import { CertificateParts, type Legacy } from './legacy.ts';
import type { HandOverLink } from './link.ts';
import { ConnectionPackets } from './packets.ts';
import { ANSWER_TIMEOUT_MS, decodeReply, type Reply, type Request, VERSIONS } from './protocol.ts';

type Offer = Inheritance & Departed;

export interface HeirCounts {
  readonly moved: number;
  /** Of these, streams of tunnels. */
  readonly streams: number;
  readonly held: number;
  readonly longestPauseMs: number;
}

export interface Received {
  readonly reply: Reply;
  readonly fds: readonly number[];
}

export class Heir implements Disposable {
  readonly #link: HandOverLink;
  readonly #clock: Clock;
  /** Requests go out one after the other. */
  #last: Promise<unknown> = Promise.resolve();
  #moved = 0;
  #streams = 0;
  #held = 0;
  #longestPauseMs = 0;

  private constructor(link: HandOverLink, clock: Clock) {
    this.#link = link;
    this.#clock = clock;
  }

  /** Owns `link`. Rejects with `CV-HAND-OVER` when the other end will not, or is no agent. */
  static async greet(link: HandOverLink, clock: Clock, build: string): Promise<Heir> {
    const heir = new Heir(link, clock);
    try {
      await heir.#ask({ type: 'hello', ...VERSIONS, build }, 'welcome');
      return heir;
    } catch (error) {
      heir[Symbol.dispose]();
      throw error;
    }
  }

  /** Connections that are ours now, those that could not move, and how long one of them, or a listener, had no owner at most. */
  get counts(): HeirCounts {
    const longestPauseMs = Math.ceil(this.#longestPauseMs);
    return { moved: this.#moved, streams: this.#streams, held: this.#held, longestPauseMs };
  }

  async yieldServers(): Promise<void> {
    await this.#inTurn(() => this.#ask({ type: 'yield-servers' }, 'yielded'));
  }

  /** What the other agent knows. */
  async inherit(): Promise<Legacy> {
    return await this.#inTurn(async () => {
      const parts = new CertificateParts();
      await this.#link.send({ type: 'inherit' });
      for (;;) {
        const { reply, fds } = await this.#receive();
        const [meshFd] = fds;
        if (reply.type === 'certificates') parts.add(reply.part);
        else if (reply.type === 'inherited') return { certificates: parts.all(), meshFd };
        else throw outOfTurn(reply);
      }
    });
  }

  /** The listeners of a pod, ours from now on; rejects with `CV-HAND-OVER` and holds nothing when the other agent is gone. */
  async take(pod: string): Promise<readonly InheritedListener[]> {
    return (await this.#inTurn(() => this.#receiveOffer({ type: 'take', pod }))).listeners;
  }

  /** Some of the connections of a pod whose listeners are ours, likewise. */
  async takeMore(pod: string): Promise<Departed> {
    return await this.#inTurn(() => this.#receiveOffer({ type: 'more', pod }));
  }

  /** The node is ours: the descriptor of its run lock, which the caller owns. */
  async commit(): Promise<number> {
    return await this.#inTurn(async () => {
      const { reply, fds } = await this.#ask({ type: 'commit' }, 'left');
      this.#held = reply.held;
      const [lock] = fds;
      if (lock === undefined) throw new MeshError('CV-HAND-OVER', 'the run lock did not come');
      return lock;
    });
  }

  /** After `commit`: where the other agent tells what it holds; the caller's. */
  get link(): HandOverLink {
    return this.#link;
  }

  [Symbol.dispose](): void {
    this.#link[Symbol.dispose]();
  }

  async #receiveOffer(request: Request & { readonly pod: string }): Promise<Offer> {
    const listeners: InheritedListener[] = [];
    const packets = new ConnectionPackets();
    const { connections } = packets;
    const startedMs = this.#clock.wallMs();
    try {
      await this.#link.send(request);
      const { held, isLast } = await this.#receiveParts(listeners, packets);
      this.#held = held;
      // Nothing may flow before the other agent has let go of its copies: two owners would tear the bytes apart.
      await this.#ask({ type: 'accept', pod: request.pod }, 'given');
      this.#moved += connections.length;
      this.#streams += connections.filter((connection) => 'tunnel' in connection).length;
      const pausedAtMs = connections.reduce((first, connection) => Math.min(first, connection.pausedAtMs), startedMs);
      this.#longestPauseMs = Math.max(this.#longestPauseMs, this.#clock.wallMs() - pausedAtMs);
      return { listeners, connections, isLast };
    } catch (error) {
      for (const fd of descriptorsOf({ listeners, connections })) closeFd(fd);
      throw error;
    }
  }

  /** Until the offer is whole. */
  async #receiveParts(
    listeners: InheritedListener[],
    packets: ConnectionPackets,
  ): Promise<Extract<Reply, { type: 'offered' }>> {
    for (;;) {
      const { reply, fds } = await this.#receive();
      if (reply.type === 'listener') {
        listeners.push({ port: reply.port, fd: fds[0] ?? -1 });
      } else if (reply.type === 'connections' || reply.type === 'bytes') {
        packets.add(reply, fds);
      } else if (reply.type === 'offered') {
        if (reply.listeners !== listeners.length || reply.connections !== packets.connections.length)
          throw outOfTurn(reply);
        return reply;
      } else throw outOfTurn(reply);
    }
  }

  async #ask<Type extends Reply['type']>(
    request: Request,
    type: Type,
  ): Promise<{ readonly reply: Extract<Reply, { type: Type }>; readonly fds: readonly number[] }> {
    await this.#link.send(request);
    const { reply, fds } = await this.#receive();
    if (isOf(reply, type)) return { reply, fds };
    for (const fd of fds) closeFd(fd);
    if (reply.type === 'refused') throw new MeshError('CV-HAND-OVER', `the running agent refuses: ${reply.reason}`);
    throw outOfTurn(reply);
  }

  async #receive(): Promise<Received> {
    using message = await this.#link.receive(ANSWER_TIMEOUT_MS);
    if (message === undefined) throw new MeshError('CV-HAND-OVER', 'the running agent ended, or gave the hand-over up');
    const reply = decodeReply(message.data);
    return { reply, fds: takeAll(message.fds) };
  }

  #inTurn<Result>(work: () => Promise<Result>): Promise<Result> {
    const done = this.#last.then(work);
    this.#last = done.catch(() => {});
    return done;
  }
}

function isOf<Type extends Reply['type']>(reply: Reply, type: Type): reply is Extract<Reply, { type: Type }> {
  return reply.type === type;
}

function takeAll(fds: PassedFds): readonly number[] {
  return Array.from({ length: fds.count }, () => fds.take()).filter((fd) => fd !== undefined);
}

function outOfTurn({ type }: Reply): MeshError {
  return new MeshError('CV-HAND-OVER', `the running agent answered out of turn: ${type}`);
}
