/** What one SOCKS client says before its connection is carried, and what it is told (RFC 1928 §3 to §6). */
import type net from 'node:net';
import { MeshError } from '../base/errors.ts';
import { lendTo } from '../sys/lending-socket.ts';
import type { HboneAuthority } from '../wire/hbone.ts';
import {
  readSocksGreeting,
  readSocksRequest,
  SOCKS_CONNECT,
  SOCKS_METHOD,
  type SocksMessage,
  socksMethod,
} from '../wire/socks5.ts';

export class SocksHandshake {
  readonly #socket: net.Socket;
  /** A reply makes sense: the client has been told how it may ask. */
  #isAskedFor = false;

  constructor(socket: net.Socket) {
    this.#socket = socket;
  }

  /** What the client wants to be connected to. Nothing behind its request is read. Rejects with a `MeshError`. */
  async request(): Promise<HboneAuthority> {
    const methods = await this.#read(readSocksGreeting);
    if (!methods.includes(SOCKS_METHOD.none)) {
      this.#socket.write(socksMethod(SOCKS_METHOD.unacceptable));
      throw new MeshError('CV-SOCKS', 'SOCKS: the client insists on authentication');
    }
    this.#socket.write(socksMethod(SOCKS_METHOD.none));
    this.#isAskedFor = true;
    const { command, target } = await this.#read(readSocksRequest);
    if (command !== SOCKS_CONNECT) throw new MeshError('CV-SOCKS', `SOCKS: command ${command} is not CONNECT`);
    return target;
  }

  /** To be called once, before anything else is written. */
  answer(reply: Uint8Array): void {
    if (this.#isAskedFor && this.#socket.writable) this.#socket.write(reply);
  }

  /** Holds a message, which is short, and the chunk that completes it; what is behind is the next to be read. */
  #read<T>(parse: (bytes: Uint8Array) => SocksMessage<T> | undefined): Promise<T> {
    const socket = this.#socket;
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    let held: Buffer = Buffer.alloc(0);
    const take = (chunk: Uint8Array): void => {
      held = Buffer.concat([held, chunk]);
      try {
        const message = parse(held);
        if (message === undefined) return;
        stop();
        const rest = held.subarray(message.byteLength);
        if (rest.length > 0) socket.unshift(rest);
        resolve(message.value);
      } catch (error) {
        stop();
        reject(error);
      }
    };
    const onEnd = (): void => {
      stop();
      reject(new MeshError('CV-WIRE-TRUNCATED', 'SOCKS: the client ended before it said what it wants'));
    };
    const stop = (): void => void socket.pause().off('data', take).off('end', onEnd).off('close', onEnd);
    // Of a lending socket these are only what was put back.
    lendTo(socket, { take });
    socket.on('data', take).once('end', onEnd).once('close', onEnd).resume();
    return promise;
  }
}
