/** An agent that starts on a node where another one serves: takes pod after pod from it, then the node (`README.md`). */
import type { Clock } from '../../base/clock.ts';
import { MeshError } from '../../base/errors.ts';
import {
  descriptorsOf,
  type Inheritance,
  type InheritedConnection,
  type InheritedListener,
} from '../../proxy/inheritance.ts';
import { closeFd } from '../../sys/duplicate.ts';
import type { PassedFds } from '../../sys/unix-contract.ts';
import type { HandOverLink } from './link.ts';
import { ANSWER_TIMEOUT_MS, decodeReply, type Reply, type Request, VERSIONS } from './protocol.ts';

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

  /** Connections that are ours now, those that could not move, and how long a pod was without an owner at most. */
  get counts(): { readonly moved: number; readonly held: number; readonly longestPauseMs: number } {
    return { moved: this.#moved, held: this.#held, longestPauseMs: Math.ceil(this.#longestPauseMs) };
  }

  async yieldServers(): Promise<void> {
    await this.#inTurn(() => this.#ask({ type: 'yield-servers' }, 'yielded'));
  }

  /** What the other agent has of a pod, ours from now on; rejects with `CV-HAND-OVER` and holds nothing when it is gone. */
  async take(pod: string): Promise<Inheritance> {
    return await this.#inTurn(() => this.#take(pod));
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

  [Symbol.dispose](): void {
    this.#link[Symbol.dispose]();
  }

  async #take(pod: string): Promise<Inheritance> {
    const listeners: InheritedListener[] = [];
    const connections: InheritedConnection[] = [];
    let sinceMs = 0;
    try {
      await this.#link.send({ type: 'take', pod });
      for (;;) {
        const { reply, fds } = await this.#receive();
        const [first = -1, second = -1] = fds;
        if (reply.type === 'listener') listeners.push({ port: reply.port, fd: first });
        else if (reply.type === 'connection') {
          connections.push({ start: reply.start, sockets: { downstream: first, upstream: second } });
        } else if (reply.type === 'offered') {
          if (reply.listeners !== listeners.length || reply.connections !== connections.length) throw outOfTurn(reply);
          this.#held = reply.held;
          sinceMs = reply.sinceMs;
          break;
        } else throw outOfTurn(reply);
      }
      // Nothing may flow before the other agent has let go of its copies: two owners would tear the bytes apart.
      await this.#ask({ type: 'accept', pod }, 'given');
      this.#moved += connections.length;
      this.#longestPauseMs = Math.max(this.#longestPauseMs, this.#clock.wallMs() - sinceMs);
      return { listeners, connections };
    } catch (error) {
      for (const fd of descriptorsOf({ listeners, connections })) closeFd(fd);
      throw error;
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
