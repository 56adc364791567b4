/** One end of the hand-over socket: whole messages, each wait with a deadline. */
import { type Clock, deadline } from '../../base/clock.ts';
import { MeshError, messageOf } from '../../base/errors.ts';
import type { FdMessage, UnixSocket } from '../../sys/unix-contract.ts';
import { encode, MAX_PACKET_BYTES, type Reply, type Request, SEND_TIMEOUT_MS } from './protocol.ts';

export class HandOverLink implements Disposable {
  readonly #socket: UnixSocket;
  readonly #clock: Clock;

  constructor(socket: UnixSocket, clock: Clock) {
    this.#socket = socket;
    this.#clock = clock;
  }

  get peerPid(): number {
    return this.#socket.peer.pid;
  }

  /** Rejects with `CV-HAND-OVER` when the other end is gone, or reads nothing for so long that it is given up. */
  async send(message: Request | Reply, fds: readonly number[] = []): Promise<void> {
    using _deadline = deadline(this.#clock, SEND_TIMEOUT_MS, () => this.#socket[Symbol.dispose]());
    try {
      await this.#socket.send(encode(message), fds);
    } catch (error) {
      throw new MeshError('CV-HAND-OVER', `the other agent does not listen: ${messageOf(error)}`, {}, { cause: error });
    }
  }

  /**
   * The next message, for the caller to dispose; `undefined`: the other end is gone. Rejects with `CV-HAND-OVER` when none comes
   * in time; without `withinMs` it waits.
   */
  async receive(withinMs?: number): Promise<FdMessage | undefined> {
    const abort = new AbortController();
    const late = (ms: number): void =>
      abort.abort(new MeshError('CV-HAND-OVER', `the other agent said nothing for ${ms / 1_000} s`));
    using _deadline = withinMs === undefined ? undefined : deadline(this.#clock, withinMs, () => late(withinMs));
    const message = await this.#socket.receive(MAX_PACKET_BYTES, abort.signal);
    if (message?.lost !== undefined) {
      message[Symbol.dispose]();
      throw new MeshError('CV-HAND-OVER', `a part of a message was lost: ${message.lost}`);
    }
    return message;
  }

  [Symbol.dispose](): void {
    this.#socket[Symbol.dispose]();
  }
}
