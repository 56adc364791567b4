/** Agents that served this node before and still carry connections which could not move, as the last of them tells. */
import type { Clock } from '../../base/clock.ts';
import { toMeshError } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import type { HandOverLink } from './link.ts';
import { decodeReply, type HeldAgent, SILENCE_TIMEOUT_MS } from './protocol.ts';

export class Predecessors implements Disposable {
  readonly #link: HandOverLink;
  readonly #clock: Clock;
  readonly #log: Logger;
  #agents: readonly HeldAgent[] = [];
  #isDisposed = false;

  /** Owns `link`, on which `left` was the last word. */
  constructor(link: HandOverLink, { clock, log }: { readonly clock: Clock; readonly log: Logger }) {
    this.#link = link;
    this.#clock = clock;
    this.#log = log;
    void this.#follow();
  }

  /** The latest first. */
  get agents(): readonly HeldAgent[] {
    return this.#agents;
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
    const agents = this.#agents;
    this.#agents = [];
    if (!this.#isDisposed) this.#sayEnd(agents[0], why);
  }

  /** False at the end. */
  async #next(): Promise<boolean> {
    using message = await this.#link.receive(SILENCE_TIMEOUT_MS);
    if (message === undefined) return false;
    const reply = decodeReply(message.data);
    if (reply.type === 'held') this.#agents = reply.agents;
    return true;
  }

  #sayEnd(agent: HeldAgent | undefined, why: string | undefined): void {
    const { pid = this.#link.peerPid, held = 0, cut = 0, connections = 0, leftAtMs } = agent ?? {};
    const heldForMs = leftAtMs === undefined ? 0 : Math.max(0, this.#clock.wallMs() - leftAtMs);
    const fields = { pid, held, cut, heldForMs };
    if (connections === 0 && why === undefined) this.#log.info?.('the agent before this one has ended', fields);
    else
      this.#log.warn?.('the agent before this one is gone, with what it held', { ...fields, connections, reason: why });
  }
}
