/** Agents that served this node before and still carry connections which could not move, as the last of them tells. */
import type { Clock } from '../../base/clock.ts';
import { MeshError, messageOf, toMeshError } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import type { ClaimedStream, StreamClaim } from '../../proxy/settings.ts';
import { closeFd } from '../../sys/duplicate.ts';
import type { HandOverLink } from './link.ts';
import { claimIn, type OfferChannel, outOfTurn, type Received, receivedOf, takeOffer } from './offer.ts';
import { type HeldAgent, SILENCE_TIMEOUT_MS } from './protocol.ts';

export interface PredecessorsDeps {
  readonly clock: Clock;
  readonly log: Logger;
  /** The other agent may be asked for streams. */
  readonly canClaim: boolean;
}

export class Predecessors implements Disposable {
  readonly #link: HandOverLink;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #canClaim: boolean;
  #agents: readonly HeldAgent[] = [];
  #isDisposed = false;
  /** Nothing comes any more. */
  #isOver = false;
  /** Why nothing that comes can be understood. */
  #broken: string | undefined;
  /** Claims go out one after the other. */
  #lastClaim: Promise<unknown> = Promise.resolve();
  #claims = 0;
  /** To the claim that waits: a few. */
  readonly #answers: Received[] = [];
  #arrived: PromiseWithResolvers<void> | undefined;

  /** Owns `link`, on which `left` was the last word. */
  constructor(link: HandOverLink, { clock, log, canClaim }: PredecessorsDeps) {
    this.#link = link;
    this.#clock = clock;
    this.#log = log;
    this.#canClaim = canClaim;
    void this.#follow();
  }

  /** The latest first. */
  get agents(): readonly HeldAgent[] {
    return this.#agents;
  }

  /** A suspended stream that a client looks for here. Never rejects. */
  async claim(pod: string, claim: StreamClaim): Promise<ClaimedStream> {
    if (this.#isOver) return 'nowhere';
    if (!this.#canClaim) return 'later';
    this.#claims += 1;
    const answer = this.#lastClaim.then(() => this.#ask(pod, claim)).catch((): ClaimedStream => 'later');
    this.#lastClaim = answer;
    return await answer.finally(() => (this.#claims -= 1));
  }

  async #ask(pod: string, claim: StreamClaim): Promise<ClaimedStream> {
    const channel: OfferChannel = { send: (request) => this.#link.send(request), receive: () => this.#nextAnswer() };
    try {
      return claimIn(await takeOffer(channel, { type: 'claim', pod, claim }));
    } catch (error) {
      // The next answer may belong to this question.
      this.#broken ??= messageOf(error);
      this.#link[Symbol.dispose]();
      throw error;
    }
  }

  async #nextAnswer(): Promise<Received> {
    for (;;) {
      const answer = this.#answers.shift();
      if (answer !== undefined) return answer;
      if (this.#isOver) throw new MeshError('CV-HAND-OVER', 'the agent before this one has ended');
      this.#arrived = Promise.withResolvers();
      await this.#arrived.promise;
    }
  }

  [Symbol.dispose](): void {
    this.#isDisposed = true;
    this.#link[Symbol.dispose]();
  }

  /** Never rejects. */
  async #follow(): Promise<void> {
    let why: string | undefined;
    try {
      while (await this.#next());
    } catch (error) {
      why = toMeshError(error).message;
    }
    this.#link[Symbol.dispose]();
    this.#isOver = true;
    for (const { fds } of this.#answers.splice(0)) for (const fd of fds) closeFd(fd);
    this.#arrived?.resolve();
    const agents = this.#agents;
    this.#agents = [];
    if (!this.#isDisposed) this.#sayEnd(agents[0], this.#broken ?? why);
  }

  /** False at the end. */
  async #next(): Promise<boolean> {
    using message = await this.#link.receive(SILENCE_TIMEOUT_MS);
    if (message === undefined) return false;
    const received = receivedOf(message);
    if (received.reply.type === 'held') this.#agents = received.reply.agents;
    else if (this.#claims > 0) this.#answers.push(received);
    else throw outOfTurn(received);
    this.#arrived?.resolve();
    return true;
  }

  #sayEnd(agent: HeldAgent | undefined, why: string | undefined): void {
    const { pid = this.#link.peerPid, held = 0, cut = 0, connections = 0, leftAtMs } = agent ?? {};
    const heldForMs = leftAtMs === undefined ? 0 : Math.max(0, this.#clock.wallMs() - leftAtMs);
    const fields = { pid, held, cut, heldForMs };
    if (connections === 0 && why === undefined) this.#log.info?.('the agent before this one has ended', fields);
    else
      this.#log.warn?.('the agent before this one is gone, with what it held', { ...fields, connections, error: why });
  }
}
