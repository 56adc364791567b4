/** An agent that starts on a node where another one serves: takes pod after pod from it, then the node (`README.md`). */
import type { Clock } from '../../base/clock.ts';
import { MeshError } from '../../base/errors.ts';
import type { Departed } from '../../proxy/departure.ts';
import { type InheritedListener, NO_NEEDS, type TunnelNeeds } from '../../proxy/inheritance.ts';
import type { ClaimedStream, StreamClaim } from '../../proxy/settings.ts';
import { closeFd } from '../../sys/duplicate.ts';
import { CertificateParts, type Legacy } from './legacy.ts';
import type { HandOverLink } from './link.ts';
import { claimIn, type Offer, type OfferChannel, outOfTurn, type Received, receivedOf, takeOffer } from './offer.ts';
import { ANSWER_TIMEOUT_MS, CLAIMS_SINCE, type Reply, type Request, VERSIONS } from './protocol.ts';

export interface HeirCounts {
  readonly moved: number;
  /** Of these, streams of tunnels. */
  readonly streams: number;
  readonly held: number;
  readonly longestPauseMs: number;
}

export interface TakenListeners {
  readonly listeners: readonly InheritedListener[];
  /** Of the connections that follow. */
  readonly needs: TunnelNeeds;
}

export class Heir implements Disposable {
  readonly #link: HandOverLink;
  readonly #clock: Clock;
  readonly #channel: OfferChannel;
  #version = 0;
  #isCommitted = false;
  /** Requests go out one after the other. */
  #last: Promise<unknown> = Promise.resolve();
  #moved = 0;
  #streams = 0;
  #held = 0;
  #longestPauseMs = 0;

  private constructor(link: HandOverLink, clock: Clock) {
    this.#link = link;
    this.#clock = clock;
    this.#channel = { send: (request) => link.send(request), receive: () => this.#receive() };
  }

  /** Owns `link`. Rejects with `CV-HAND-OVER` when the other end will not, or is no agent. */
  static async greet(link: HandOverLink, clock: Clock, build: string): Promise<Heir> {
    const heir = new Heir(link, clock);
    try {
      const { reply } = await heir.#ask({ type: 'hello', ...VERSIONS, build }, 'welcome');
      heir.#version = reply.version;
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
        const received = await this.#receive();
        const { reply, fds } = received;
        if (reply.type === 'certificates') parts.add(reply.part);
        else if (reply.type === 'inherited') return legacyOf(parts, fds);
        else throw outOfTurn(received);
      }
    });
  }

  /** The listeners of a pod, ours from now on; rejects with `CV-HAND-OVER` and holds nothing when the other agent is gone. */
  async take(pod: string): Promise<TakenListeners> {
    const { listeners, said } = await this.#inTurn(() => this.#receiveOffer({ type: 'take', pod }));
    return { listeners, needs: said.needs ?? NO_NEEDS };
  }

  /** Some of the connections of a pod whose listeners are ours, likewise. */
  async takeMore(pod: string): Promise<Departed> {
    const { connections, isLast } = await this.#inTurn(() => this.#receiveOffer({ type: 'more', pod }));
    return { connections, isLast };
  }

  /** A suspended stream of such a pod that a client looks for here. */
  async claim(pod: string, claim: StreamClaim): Promise<ClaimedStream> {
    return await this.#inTurn(async () => {
      // Whoever has the node reads from the link elsewhere.
      if (!this.canClaim || this.#isCommitted) return 'later';
      return claimIn(await this.#receiveOffer({ type: 'claim', pod, claim }));
    });
  }

  /** The other agent knows the question. */
  get canClaim(): boolean {
    return this.#version >= CLAIMS_SINCE;
  }

  /** The node is ours: the descriptor of its run lock, which the caller owns. */
  async commit(): Promise<number> {
    return await this.#inTurn(async () => {
      this.#isCommitted = true;
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
    const startedMs = this.#clock.wallMs();
    const offer = await takeOffer(this.#channel, request);
    const { connections } = offer;
    this.#held = offer.said.held;
    this.#moved += connections.length;
    this.#streams += connections.filter((connection) => 'tunnel' in connection).length;
    const pausedAtMs = connections.reduce((first, connection) => Math.min(first, connection.pausedAtMs), startedMs);
    this.#longestPauseMs = Math.max(this.#longestPauseMs, this.#clock.wallMs() - pausedAtMs);
    return offer;
  }

  async #ask<Type extends Reply['type']>(
    request: Request,
    type: Type,
  ): Promise<{ readonly reply: Extract<Reply, { type: Type }>; readonly fds: readonly number[] }> {
    await this.#link.send(request);
    const received = await this.#receive();
    const { reply, fds } = received;
    if (isOf(reply, type)) return { reply, fds };
    throw outOfTurn(received);
  }

  async #receive(): Promise<Received> {
    using message = await this.#link.receive(ANSWER_TIMEOUT_MS);
    if (message === undefined) throw new MeshError('CV-HAND-OVER', 'the running agent ended, or gave the hand-over up');
    return receivedOf(message);
  }

  #inTurn<Result>(work: () => Promise<Result>): Promise<Result> {
    const done = this.#last.then(work);
    this.#last = done.catch(() => {});
    return done;
  }
}

function legacyOf(parts: CertificateParts, fds: readonly number[]): Legacy {
  try {
    const [meshFd] = fds;
    return { certificates: parts.all(), meshFd };
  } catch (error) {
    for (const fd of fds) closeFd(fd);
    throw error;
  }
}

function isOf<Type extends Reply['type']>(reply: Reply, type: Type): reply is Extract<Reply, { type: Type }> {
  return reply.type === type;
}
