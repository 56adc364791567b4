/** A nameserver in the hands of a test: UDP and TCP on one port, every query kept as it came, answered as told. */
import dgram from 'node:dgram';
import { once } from 'node:events';
import type net from 'node:net';
import { type Answer, decode, encode, type Packet } from 'dns-packet';
import type { HostPort } from '../../src/base/ip.ts';
import { linuxSys } from '../../src/sys/linux.ts';
import { localAddress } from '../../src/sys/sockets.ts';
import type { Netns } from '../../src/sys/sys.ts';
import { listenOn } from '../../src/sys/tcp.ts';
import { DnsFrames, dnsFrame } from '../../src/wire/dns-frames.ts';

type Transport = 'udp' | 'tcp';

export interface Received {
  readonly transport: Transport;
  readonly bytes: Buffer;
  /** Sends one more message to whoever asked, from the socket that was asked. */
  readonly send: (reply: Uint8Array) => void;
  /** Who asked. */
  readonly from: HostPort;
}

/** `undefined`: says nothing, for now or for ever. */
export type Script = (query: Received) => Uint8Array | undefined;

export class TestNameserver implements AsyncDisposable {
  readonly address: HostPort;
  readonly received: Received[] = [];
  /** How queries are answered from now on. */
  script: Script = echo;
  readonly #undo = new AsyncDisposableStack();
  readonly #waiters = new Set<() => void>();

  private constructor(address: HostPort) {
    this.address = address;
  }

  /** Port 0: any that is free over both transports. */
  static async start(at: HostPort = { ip: '127.0.0.1', port: 0 }, netns?: Netns): Promise<TestNameserver> {
    for (;;) {
      const tcp = linuxSys.listenTcp(netns, { address: at.ip, port: at.port }).fd;
      const port = localAddress(tcp)?.port ?? 0;
      try {
        const udp = linuxSys.socketUdp(netns, { address: at.ip, port });
        const nameserver = new TestNameserver({ ip: at.ip, port });
        nameserver.#serveTcp(tcp);
        await nameserver.#serveUdp(udp);
        return nameserver;
      } catch (error) {
        linuxSys.close(tcp);
        if (at.port !== 0) throw error;
      }
    }
  }

  /** Resolves with the `count`-th query that fits, received or still to come. */
  async query(fits: (query: Received) => boolean = () => true, count = 1): Promise<Received> {
    for (;;) {
      const found = this.received.filter(fits)[count - 1];
      if (found !== undefined) return found;
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#waiters.add(resolve);
      await promise;
      this.#waiters.delete(resolve);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#undo.disposeAsync();
  }

  async #serveUdp(fd: number): Promise<void> {
    const socket = dgram.createSocket(this.address.ip.includes(':') ? 'udp6' : 'udp4');
    this.#undo.defer(() => void socket.close());
    socket.on('message', (bytes, { address, port }) => {
      const send = (reply: Uint8Array): void => socket.send(reply, port, address, () => {});
      this.#take({ transport: 'udp', bytes, send, from: { ip: address, port } });
    });
    const listening = once(socket, 'listening');
    socket.bind({ fd });
    await listening;
  }

  #serveTcp(fd: number): void {
    const open = new Set<net.Socket>();
    const server = listenOn(fd, {
      onConnection: (socket) => {
        open.add(socket);
        socket.once('close', () => open.delete(socket)).on('end', () => socket.end());
        const frames = new DnsFrames();
        const from = { ip: socket.remoteAddress ?? '', port: socket.remotePort ?? 0 };
        const send = (reply: Uint8Array): void => void socket.write(dnsFrame(reply));
        socket.on('data', (chunk: Buffer) => {
          for (const message of frames.push(chunk)) {
            this.#take({ transport: 'tcp', bytes: Buffer.from(message), send, from });
          }
        });
        socket.resume();
      },
    });
    this.#undo.defer(() => {
      server.close();
      for (const socket of open) socket.destroy();
    });
  }

  #take(query: Received): void {
    this.received.push(query);
    const reply = this.script(query);
    if (reply !== undefined) query.send(reply);
    for (const wake of this.#waiters) wake();
  }
}

/** The query itself, as a response without records. */
export function echo({ bytes }: Received): Uint8Array {
  return respond(bytes);
}

/** `query` with QR set, `flags` added, and `extra` behind it. */
export function respond(query: Uint8Array, flags = 0, extra: Uint8Array = new Uint8Array()): Uint8Array {
  const reply = Buffer.concat([query, extra]);
  reply.writeUInt16BE(reply.readUInt16BE(2) | 0x8000 | flags, 2);
  return reply;
}

export interface RecordsReply {
  readonly answers?: readonly Answer[];
  /** RCODE, RFC 1035 §4.1.1. */
  readonly rcode?: number;
}

/** Answers with records, or with an error, by type and name; what `replyTo` has nothing for is met with silence. */
export function answering(replyTo: (type: string, name: string) => RecordsReply | undefined): Script {
  return ({ bytes }) => {
    const query: Packet = decode(bytes);
    const [question] = query.questions ?? [];
    const reply = question && replyTo(question.type, question.name);
    if (reply === undefined) return undefined;
    const { answers = [], rcode = 0 } = reply;
    // RD and RA, as a resolver answers.
    return encode({ ...query, type: 'response', flags: 0x180 | rcode, answers: [...answers] });
  };
}
