/** A listener that can rest: its clients then stay in the queue of the kernel, connected and not accepted. */
import type net from 'node:net';
import { parked } from './parked.ts';
import { duplicateOf } from './tcp.ts';

export class Intake {
  readonly port: number;
  readonly #serve: (fd: number) => net.Server;
  #server: net.Server | undefined;
  /** The listener while it rests. */
  #resting: net.Socket | undefined;

  /** Owns `fd`. `serve` makes a server of a descriptor, and owns that. */
  constructor(fd: number, port: number, serve: (fd: number) => net.Server) {
    this.port = port;
    this.#serve = serve;
    this.#server = serve(fd);
  }

  get isResting(): boolean {
    return this.#resting !== undefined;
  }

  /** A second descriptor of the listener, the caller's to close: the queue outlives this. Throws `CV-SYS`. */
  duplicate(): number {
    return duplicateOf(this.#server ?? this.#resting);
  }

  /** Does nothing when this process has no room for a descriptor. */
  rest(): void {
    if (this.#server === undefined) return;
    const fd = this.#tryDuplicate();
    if (fd === undefined) return;
    this.#server.close();
    this.#server = undefined;
    this.#resting = parked(fd);
  }

  /** Ends a rest. False: there is no room for a descriptor now. */
  goOn(): boolean {
    if (this.#resting === undefined) return true;
    const fd = this.#tryDuplicate();
    if (fd === undefined) return false;
    this.#resting.destroy();
    this.#resting = undefined;
    this.#server = this.#serve(fd);
    return true;
  }

  close(): void {
    this.#server?.close();
    this.#resting?.destroy();
    this.#server = undefined;
    this.#resting = undefined;
  }

  #tryDuplicate(): number | undefined {
    try {
      return this.duplicate();
    } catch {
      return undefined;
    }
  }
}
