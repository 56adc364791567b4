/** A gRPC server on one port (TLS) or one unix socket. We own the listener, grpc-js gets connections whose handshake is done. */
import { once } from 'node:events';
import net from 'node:net';
import tls from 'node:tls';
import { type ConnectionInjector, Server, ServerCredentials, type ServerOptions } from '@grpc/grpc-js';
import type { Clock } from '../base/clock.ts';
import { MeshError, messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { RpcService } from './service.ts';

export interface ServerCertificate {
  /** Leaf first. */
  readonly chainPem: string;
  readonly keyPem: string;
  /** Client certificates are asked for, and verified with these when sent; none = not asked for. */
  readonly clientRootsPem?: readonly string[];
}

export type RpcListen =
  | { readonly kind: 'tls'; readonly host: string; readonly port: number; readonly certificate: ServerCertificate }
  | { readonly kind: 'unix'; readonly path: string };

export interface RpcServerOptions {
  readonly listen: RpcListen;
  readonly services: readonly RpcService[];
  readonly maxConnections: number;
  readonly maxStreamsPerConnection: number;
  readonly maxReceiveBytes: number;
  /** A connection is closed at this age, so that clients spread over replicas; its calls may go on for `graceMs`. */
  readonly maxConnectionAge?: { readonly ageMs: number; readonly graceMs: number };
}

export interface RpcServerDeps {
  readonly clock: Clock;
  readonly log: Logger;
}

/** istiod's values. */
const KEEPALIVE_INTERVAL_MS = 30_000;
const KEEPALIVE_TIMEOUT_MS = 10_000;
const HANDSHAKE_TIMEOUT_MS = 10_000;

export class RpcServer implements AsyncDisposable {
  readonly #listener: net.Server | tls.Server;
  readonly #grpc: Server;
  readonly #injector: ConnectionInjector;
  readonly #sockets = new Set<net.Socket>();
  readonly #clock: Clock;

  private constructor(listener: net.Server | tls.Server, options: RpcServerOptions, { clock, log }: RpcServerDeps) {
    this.#listener = listener;
    this.#clock = clock;
    this.#grpc = new Server(serverOptions(options));
    for (const { methods } of options.services) {
      for (const { definition, handle } of methods) {
        this.#grpc.addService({ [definition.path]: definition }, { [definition.path]: handle(log) });
      }
    }
    this.#injector = this.#grpc.createConnectionInjector(ServerCredentials.createInsecure());
    listener.maxConnections = options.maxConnections;
    listener.on('connection', (socket: net.Socket) => this.#track(socket));
    listener.on('tlsClientError', (error: Error, socket: net.Socket) => {
      log.debug?.('TLS handshake failed', { peer: socket.remoteAddress, error: error.message });
    });
    const ready = listener instanceof tls.Server ? 'secureConnection' : 'connection';
    listener.on(ready, (socket: net.Socket) => this.#serve(socket));
  }

  /** Rejects with `CV-BIND` when the port or path is taken. */
  static async listen(options: RpcServerOptions, deps: RpcServerDeps): Promise<RpcServer> {
    const { listen } = options;
    const listener = listen.kind === 'tls' ? tls.createServer(tlsOptions(listen.certificate)) : net.createServer();
    const server = new RpcServer(listener, options, deps);
    try {
      listener.listen(listen.kind === 'tls' ? { host: listen.host, port: listen.port } : { path: listen.path });
      await once(listener, 'listening');
      return server;
    } catch (error) {
      await server.stop(0);
      throw new MeshError('CV-BIND', `gRPC server cannot listen: ${messageOf(error)}`, {}, { cause: error });
    }
  }

  /** 0 on a unix socket. */
  get port(): number {
    const address = this.#listener.address();
    return typeof address === 'object' && address !== null ? address.port : 0;
  }

  get connections(): number {
    return this.#sockets.size;
  }

  /** For every handshake from now on; open connections stay. Not for unix sockets. */
  setCertificate(certificate: ServerCertificate): void {
    if (this.#listener instanceof tls.Server) this.#listener.setSecureContext(secureContextOptions(certificate));
  }

  /** Takes no new connection, says GOAWAY, and ends what is left after `graceMs`. */
  async stop(graceMs: number): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#listener.close(() => resolve()));
    const drained = new Promise<void>((resolve) => this.#grpc.tryShutdown(() => resolve()));
    using _grace = this.#clock.after(graceMs, () => this.#cut());
    if (graceMs === 0) this.#cut();
    await Promise.all([closed, drained]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop(0);
  }

  #cut(): void {
    this.#grpc.forceShutdown();
    this.#injector.destroy();
    for (const socket of this.#sockets) socket.destroy();
  }

  #track(socket: net.Socket): void {
    this.#sockets.add(socket);
    socket.once('close', () => this.#sockets.delete(socket));
  }

  #serve(socket: net.Socket): void {
    socket.on('error', () => socket.destroy());
    if (socket instanceof tls.TLSSocket && !isAcceptable(socket)) socket.destroy();
    else this.#injector.injectConnection(socket);
  }
}

/** A client certificate is optional, but a wrong one is not the same as none. */
function isAcceptable(socket: tls.TLSSocket): boolean {
  if (socket.alpnProtocol !== 'h2') return false;
  return socket.authorized || socket.getPeerX509Certificate() === undefined;
}

function tlsOptions(certificate: ServerCertificate): tls.TlsOptions {
  return {
    ...secureContextOptions(certificate),
    ALPNProtocols: ['h2'],
    requestCert: certificate.clientRootsPem !== undefined,
    rejectUnauthorized: false,
    handshakeTimeout: HANDSHAKE_TIMEOUT_MS,
  };
}

function secureContextOptions({ chainPem, keyPem, clientRootsPem }: ServerCertificate): tls.SecureContextOptions {
  return {
    cert: chainPem,
    key: keyPem,
    minVersion: 'TLSv1.3',
    ...(clientRootsPem !== undefined && { ca: [...clientRootsPem] }),
  };
}

function serverOptions(options: RpcServerOptions): ServerOptions {
  return {
    'grpc.keepalive_time_ms': KEEPALIVE_INTERVAL_MS,
    'grpc.keepalive_timeout_ms': KEEPALIVE_TIMEOUT_MS,
    'grpc.max_concurrent_streams': options.maxStreamsPerConnection,
    'grpc.max_receive_message_length': options.maxReceiveBytes,
    'grpc.enable_channelz': 0,
    ...(options.maxConnectionAge && {
      'grpc.max_connection_age_ms': options.maxConnectionAge.ageMs,
      'grpc.max_connection_age_grace_ms': options.maxConnectionAge.graceMs,
    }),
  };
}
