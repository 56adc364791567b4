/** A client that asks over TCP: several queries at a time on one connection, answered as the answers come (RFC 7766). */
import type net from 'node:net';
import { type Clock, deadline } from '../base/clock.ts';
import { DnsFrames, dnsFrame } from '../wire/dns-frames.ts';
import type { SendReply } from './dns-handler.ts';

/** As the reference. */
const MAX_PIPELINED = 32;
/** Replies of a client that does not read; over it no query is taken from it. */
const MAX_UNREAD_BYTES = 128 * 1024;

export interface DnsConnectionOptions {
  readonly clock: Clock;
  /** A connection that completes no query for this long is closed, one that reads no reply too. */
  readonly idleMs: number;
  /** Calls `send` once, and never rejects. */
  readonly serve: (message: Uint8Array, send: SendReply) => Promise<void>;
}

/** `socket` is paused. Whoever destroys it ends this too. */
export function serveDnsConnection(socket: net.Socket, options: DnsConnectionOptions): void {
  new DnsConnection(socket, options).start();
}

class DnsConnection {
  readonly #socket: net.Socket;
  readonly #options: DnsConnectionOptions;
  readonly #frames = new DnsFrames();
  readonly #waiting: Uint8Array[] = [];
  #asked = 0;
  #hasEnded = false;
  #timer: Disposable | undefined;

  constructor(socket: net.Socket, options: DnsConnectionOptions) {
    this.#socket = socket;
    this.#options = options;
  }

  start(): void {
    const socket = this.#socket;
    socket.on('data', (chunk: Buffer) => {
      this.#waiting.push(...this.#frames.push(chunk));
      this.#work();
    });
    socket.on('drain', () => this.#work());
    socket.on('end', () => {
      this.#hasEnded = true;
      this.#work();
    });
    socket.on('close', () => this.#timer?.[Symbol.dispose]());
    this.#rearm();
    socket.resume();
  }

  #work(): void {
    while (this.#waiting.length > 0 && this.#isOpenForMore()) void this.#ask(this.#waiting.shift());
    if (this.#waiting.length > 0) this.#socket.pause();
    else if (this.#hasEnded && this.#asked === 0) this.#socket.end();
    else this.#socket.resume();
  }

  #isOpenForMore(): boolean {
    return this.#asked < MAX_PIPELINED && this.#socket.writableLength < MAX_UNREAD_BYTES;
  }

  async #ask(message: Uint8Array = new Uint8Array()): Promise<void> {
    this.#asked += 1;
    await this.#options.serve(message, (reply) => {
      this.#asked -= 1;
      return this.#send(reply);
    });
  }

  async #send(reply: Uint8Array | undefined): Promise<void> {
    if (reply === undefined) this.#socket.destroy();
    if (reply === undefined || this.#socket.destroyed) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#socket.write(dnsFrame(reply), () => resolve());
    this.#rearm();
    this.#work();
    await promise;
  }

  #rearm(): void {
    this.#timer?.[Symbol.dispose]();
    this.#timer = deadline(this.#options.clock, this.#options.idleMs, () => {
      // A slow nameserver is no idle client.
      if (this.#asked > 0) this.#rearm();
      else this.#socket.destroy();
    });
  }
}
