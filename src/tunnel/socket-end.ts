/** The end of a socket that has its last words: it closes by itself, or is closed once its peer has had time to hear them. */
import net from 'node:net';
import type { Duplex } from 'node:stream';
import type { Clock } from '../base/clock.ts';
import { hasUndelivered } from '../sys/tcp.ts';

/** After the last frame the socket may take so long to close by itself. */
const CLOSE_WITHIN_MS = 1_000;
/** So often it is given that time while the last words of a tunnel that ends in order are on their way to a slow peer. */
const MOST_CLOSE_LOOKS = 60;

/**
 * A socket that is closed answers what the peer sends yet with a reset, and all that has not arrived there is lost: one that ends in
 * order is waited for while it delivers, any other for a second.
 */
export class SocketEnd implements Disposable {
  readonly #socket: Duplex;
  readonly #clock: Clock;
  #timer: Disposable;

  constructor(socket: Duplex, clock: Clock, isInOrder: boolean) {
    this.#socket = socket;
    this.#clock = clock;
    this.#timer = this.#closeLater(isInOrder ? MOST_CLOSE_LOOKS : 1);
  }

  /** It has closed by itself. */
  [Symbol.dispose](): void {
    this.#timer[Symbol.dispose]();
  }

  #closeLater(looks: number): Disposable {
    return this.#clock.after(CLOSE_WITHIN_MS, () => {
      if (looks > 1 && this.#isDelivering) this.#timer = this.#closeLater(looks - 1);
      else this.#socket.destroy();
    });
  }

  get #isDelivering(): boolean {
    const socket = this.#socket;
    return !socket.writableFinished || (socket instanceof net.Socket && hasUndelivered(socket));
  }
}
