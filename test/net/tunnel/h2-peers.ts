/** Both ends of one HBONE session over real TLS: our engine, node:http2, or raw octets, in any pairing. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import http2 from 'node:http2';
import type net from 'node:net';
import type { Duplex } from 'node:stream';
import tls from 'node:tls';
import type { Clock } from '../../../src/base/clock.ts';
import type { MeshError } from '../../../src/base/errors.ts';
import { systemClock } from '../../../src/sys/system-clock.ts';
import type { ByteStreamHandlers } from '../../../src/tunnel/byte-stream.ts';
import { H2Session, type H2SessionHandlers } from '../../../src/tunnel/h2-session.ts';
import {
  CLIENT_SETTINGS,
  DEFAULT_LIMITS,
  type H2Limits,
  type H2Settings,
  SERVER_SETTINGS,
} from '../../../src/tunnel/h2-settings.ts';
import type { H2Stream } from '../../../src/tunnel/h2-stream.ts';
import { meshCa } from '../../support/certs.ts';

const IDENTITY = 'spiffe://cluster.local/ns/test/sa/peer';
const ca = await meshCa('h2');
const material = await ca.material(IDENTITY);
export const tlsOptions = {
  key: material.keyPem,
  cert: material.chainPem,
  ca: [...material.rootsPem],
  ALPNProtocols: ['h2'],
};

export interface TlsPair extends AsyncDisposable {
  readonly client: tls.TLSSocket;
  readonly server: tls.TLSSocket;
}

/** Two handshaken TLS sockets over loopback. */
export async function tlsPair(): Promise<TlsPair> {
  const listener = tls.createServer({ ...tlsOptions, allowHalfOpen: true }).listen(0, '127.0.0.1');
  await once(listener, 'listening');
  const { port } = listener.address() as net.AddressInfo;
  const client = tls.connect({ ...tlsOptions, port, host: '127.0.0.1', checkServerIdentity: () => undefined });
  client.allowHalfOpen = true;
  const [[server]] = (await Promise.all([once(listener, 'secureConnection'), once(client, 'secureConnect')])) as [
    [tls.TLSSocket],
    unknown,
  ];
  return {
    client,
    server,
    async [Symbol.asyncDispose]() {
      client.on('error', () => undefined).destroy();
      server.on('error', () => undefined).destroy();
      listener.close();
      await once(listener, 'close');
    },
  };
}

/** An engine session and what it told its owner. */
export class Peer {
  readonly session: H2Session;
  readonly streams: { readonly stream: H2Stream; readonly authority: string | undefined; readonly method: string }[] =
    [];
  goaways = 0;
  readonly closed: Promise<MeshError | undefined>;
  closes = 0;

  constructor(
    role: 'client' | 'server',
    socket: Duplex,
    options: {
      readonly onStream?: H2SessionHandlers['onStream'];
      readonly clock?: Clock;
      readonly limits?: Partial<H2Limits>;
      readonly settings?: Partial<H2Settings>;
    } = {},
  ) {
    const end = Promise.withResolvers<MeshError | undefined>();
    this.closed = end.promise;
    this.session = new H2Session({
      socket,
      role,
      settings: { ...(role === 'client' ? CLIENT_SETTINGS : SERVER_SETTINGS), ...options.settings },
      limits: { ...DEFAULT_LIMITS, ...options.limits },
      clock: options.clock ?? systemClock,
      handlers: {
        onStream: (stream, request) => {
          this.streams.push({ stream, authority: request.authority, method: request.method });
          options.onStream?.(stream, request);
        },
        onGoaway: () => {
          this.goaways += 1;
        },
        onClose: (error) => {
          this.closes += 1;
          end.resolve(error);
        },
      },
    });
  }
}

type PeerOptions = ConstructorParameters<typeof Peer>[2];

export interface EnginePair extends AsyncDisposable {
  readonly client: Peer;
  readonly server: Peer;
}

/** Our engine at both ends. */
export async function enginePair(server: PeerOptions = {}, client: PeerOptions = {}): Promise<EnginePair> {
  const sockets = await tlsPair();
  return {
    server: new Peer('server', sockets.server, server),
    client: new Peer('client', sockets.client, client),
    [Symbol.asyncDispose]: () => sockets[Symbol.asyncDispose](),
  };
}

/** Collects what a stream delivers. */
export class Reader implements ByteStreamHandlers {
  readonly chunks: Uint8Array[] = [];
  bytes = 0;
  drains = 0;
  ends = 0;
  closes = 0;
  error: MeshError | undefined;
  readonly ended: Promise<void>;
  readonly closed: Promise<MeshError | undefined>;
  readonly #end = Promise.withResolvers<void>();
  readonly #close = Promise.withResolvers<MeshError | undefined>();
  readonly #waiting: { readonly isDone: () => boolean; readonly resolve: () => void }[] = [];
  readonly #keep: boolean;
  readonly #stream: H2Stream;

  constructor(stream: H2Stream, { keep = true } = {}) {
    this.ended = this.#end.promise;
    this.closed = this.#close.promise;
    this.#keep = keep;
    this.#stream = stream;
    stream.open(this);
  }

  /** Resolves when at least `bytes` have arrived. */
  until(bytes: number): Promise<void> {
    return this.#wait(() => this.bytes >= bytes);
  }

  drained(): Promise<void> {
    const before = this.drains;
    return this.#wait(() => this.drains > before);
  }

  text(): string {
    return Buffer.concat(this.chunks).toString();
  }

  onData(chunk: Uint8Array): void {
    assert.equal(this.ends + this.closes, 0, 'data after the end');
    if (this.#keep) this.chunks.push(this.#stream.isLending ? new Uint8Array(chunk) : chunk);
    this.bytes += chunk.length;
    this.#look();
  }

  onEnd(): void {
    this.ends += 1;
    assert.equal(this.ends, 1, 'ended twice');
    this.#end.resolve();
  }

  onDrain(): void {
    this.drains += 1;
    this.#look();
  }

  onClose(error: MeshError | undefined): void {
    this.closes += 1;
    assert.equal(this.closes, 1, 'closed twice');
    this.error = error;
    this.#close.resolve(error);
  }

  #wait(isDone: () => boolean): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#waiting.push({ isDone, resolve });
    this.#look();
    return promise;
  }

  #look(): void {
    for (const waiter of this.#waiting) if (waiter.isDone()) waiter.resolve();
  }
}

/** Answers every CONNECT with 200 and what it receives. */
export function echo(stream: H2Stream): void {
  stream.respond(200);
  stream.open({
    onData: (chunk) => {
      if (!stream.write(chunk, stream.isLending)) stream.pause();
    },
    onEnd: () => stream.end(),
    onDrain: () => stream.resume(),
    onClose: () => undefined,
  });
}

export interface NodeServer extends AsyncDisposable {
  readonly port: number;
  readonly server: http2.Http2SecureServer;
  /** A TLS socket connected to it, ready for the engine. */
  dial(): Promise<tls.TLSSocket>;
}

/** `node:http2` as the HBONE server. */
export async function nodeServer(
  onConnect: (stream: http2.ServerHttp2Stream, headers: http2.IncomingHttpHeaders) => void,
  settings: http2.Settings = {},
): Promise<NodeServer> {
  const server = http2.createSecureServer({ ...tlsOptions, settings });
  const sessions = new Set<http2.ServerHttp2Session>();
  server.on('session', (session) => sessions.add(session));
  server.on('sessionError', () => undefined);
  server.on('stream', (stream: http2.ServerHttp2Stream, headers: http2.IncomingHttpHeaders) => {
    stream.on('error', () => undefined);
    onConnect(stream, headers);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as net.AddressInfo;
  const sockets: tls.TLSSocket[] = [];
  return {
    port,
    server,
    async dial() {
      const socket = tls.connect({ ...tlsOptions, port, host: '127.0.0.1', checkServerIdentity: () => undefined });
      socket.allowHalfOpen = true;
      sockets.push(socket);
      await once(socket, 'secureConnect');
      return socket;
    },
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.on('error', () => undefined).destroy();
      for (const session of sessions) session.destroy();
      server.close();
      await once(server, 'close');
    },
  };
}

export interface NodeClient extends AsyncDisposable {
  readonly session: http2.ClientHttp2Session;
  /** The engine at the other end. */
  readonly peer: Peer;
}

/** `node:http2` as the HBONE client of an engine. */
export async function nodeClient(server: PeerOptions = {}, settings: http2.Settings = {}): Promise<NodeClient> {
  const sockets = await tlsPair();
  const peer = new Peer('server', sockets.server, server);
  const session = http2.connect('https://peer', { createConnection: () => sockets.client, settings });
  session.on('error', () => undefined);
  return {
    session,
    peer,
    async [Symbol.asyncDispose]() {
      session.destroy();
      await sockets[Symbol.asyncDispose]();
    },
  };
}

export function connectRequest(session: http2.ClientHttp2Session, authority = '10.0.0.1:80'): http2.ClientHttp2Stream {
  const request = session.request({ ':method': 'CONNECT', ':authority': authority }, { endStream: false });
  request.on('error', () => undefined);
  return request;
}
