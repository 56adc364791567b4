/** Applications of a test mesh: a server that doubles what it hears, and clients that look closely. */
import { once } from 'node:events';
import type net from 'node:net';
import { formatHostPort, type HostPort } from '../../src/base/ip.ts';
import type { TestMesh } from './mesh.ts';

/** Far over what anything takes on a busy machine. */
const WAIT_MS = 90_000;

/** Answers every byte twice and ends when the client ends: 11 bytes asked are 22 answered. */
export function doubling(socket: net.Socket): void {
  socket.on('data', (chunk: Buffer) => {
    const wasTaken = socket.write(Buffer.concat([chunk, chunk]));
    if (!wasTaken) socket.pause();
  });
  socket.on('drain', () => socket.resume());
  socket.on('end', () => socket.end());
}

/** Says who it is and whom it sees, doubles nothing, ends when the client ends. */
export function naming(name: string): (socket: net.Socket) => void {
  return (socket) => {
    socket.write(`${name} sees ${(socket.remoteAddress ?? '').replace('::ffff:', '')}\n`);
    socket.on('end', () => socket.end());
  };
}

export type End = 'end' | 'reset' | 'closed';

/** A client connection that keeps what it received and knows how it ended. */
export class Client implements Disposable {
  readonly socket: net.Socket;
  /** `ip:port` of the client as access logs print it. */
  readonly address: string;
  readonly #chunks: Buffer[] = [];
  readonly #news = new Set<() => void>();
  #bytes = 0;
  #end: End | undefined;

  constructor(socket: net.Socket, address = localOf(socket)) {
    this.socket = socket;
    this.address = address;
    if (socket.errored !== null) this.#end = 'reset';
    socket.on('data', (chunk: Buffer) => {
      this.#chunks.push(chunk);
      this.#bytes += chunk.length;
      this.#wake();
    });
    socket.on('end', () => this.#ended('end'));
    socket.on('error', () => this.#ended('reset'));
    socket.on('close', () => this.#ended('closed'));
    socket.resume();
  }

  get received(): Buffer {
    return Buffer.concat(this.#chunks);
  }

  get text(): string {
    return this.received.toString();
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** It has ended, one way or the other. */
  get isOver(): boolean {
    return this.#end !== undefined;
  }

  /** Resolves when at least so many bytes came; rejects when the connection ended before. */
  async atLeast(bytes: number): Promise<string> {
    while (this.#bytes < bytes) {
      if (this.#end !== undefined) throw new Error(`${this.#end} after ${this.#bytes} of ${bytes} bytes: ${this.text}`);
      await this.#wait(`${bytes} bytes`);
    }
    return this.text;
  }

  /** How the other side ended the connection: in order, or by a reset. */
  async ended(): Promise<End> {
    while (this.#end === undefined) await this.#wait('the end');
    return this.#end;
  }

  /** Sends `text` and reads until so many bytes came. */
  async exchange(text: string, bytes = 2 * text.length): Promise<string> {
    const wanted = this.#bytes + bytes;
    this.socket.write(text);
    return this.atLeast(wanted);
  }

  [Symbol.dispose](): void {
    this.socket.destroy();
  }

  #ended(how: End): void {
    this.#end ??= how;
    this.#wake();
  }

  #wake(): void {
    for (const wake of this.#news) wake();
  }

  #wait(what: string): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const timer = setTimeout(() => reject(new Error(`no ${what} in ${WAIT_MS / 1000} s`)), WAIT_MS);
    this.#news.add(resolve);
    return promise.finally(() => {
      clearTimeout(timer);
      this.#news.delete(resolve);
    });
  }
}

function localOf({ localAddress: ip = '', localPort: port = 0 }: net.Socket): string {
  return formatHostPort({ ip, port });
}

/** A connection from inside a pod. Rejects with a `MeshError` when TCP itself fails. */
export async function dial(mesh: TestMesh, from: string, to: HostPort): Promise<Client> {
  const socket = await mesh.dial(from, to);
  return new Client(socket, mesh.addressOf(socket));
}

/** Sends `request`, half-closes, and resolves with the whole answer; rejects unless the answer ends in order. */
export async function ask(mesh: TestMesh, from: string, to: HostPort, request = ''): Promise<string> {
  using client = await dial(mesh, from, to);
  client.socket.end(request);
  const end = await client.ended();
  if (end !== 'end') throw new Error(`the answer was cut (${end}) after: ${client.text}`);
  return client.text;
}

/** Resolves when the mesh refuses the connection as it should: accepted by the agent, then reset without a byte. */
export async function refused(mesh: TestMesh, from: string, to: HostPort, request = 'hello'): Promise<void> {
  using client = await dial(mesh, from, to);
  client.socket.write(request);
  const end = await client.ended();
  if (end !== 'reset' || client.bytes > 0) throw new Error(`not refused, but ${end} after: ${client.text}`);
}

/** Resolves when `socket` is gone. */
export async function gone(socket: net.Socket): Promise<void> {
  if (!socket.closed) await once(socket, 'close');
}
