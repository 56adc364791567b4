/** An HBONE server that shares no code with ours: node:tls and node:http2, on loopback or inside a stream. */
import { once } from 'node:events';
import http2 from 'node:http2';
import type net from 'node:net';
import type { Duplex } from 'node:stream';
import type tls from 'node:tls';
import type { HostPort } from '../../../src/base/ip.ts';
import { materialOf } from './proxy-world.ts';

export interface Connect {
  readonly stream: http2.ServerHttp2Stream;
  readonly headers: http2.IncomingHttpHeaders;
  /** URI SANs of the client, as node:tls prints them. */
  readonly client: string;
}

export class ForeignServer implements AsyncDisposable {
  readonly connects: Connect[] = [];
  readonly sessions = new Set<http2.ServerHttp2Session>();
  readonly #sockets = new Set<tls.TLSSocket>();
  readonly #server: http2.Http2SecureServer;

  private constructor(server: http2.Http2SecureServer, onConnect: (connect: Connect) => void) {
    this.#server = server;
    server.on('sessionError', () => undefined);
    server.on('secureConnection', (socket) => this.#sockets.add(socket));
    server.on('session', (session) => this.sessions.add(session));
    server.on('stream', (stream: http2.ServerHttp2Stream, headers: http2.IncomingHttpHeaders) => {
      const connect = { stream: stream.on('error', () => undefined), headers, client: clientOf(stream) };
      this.connects.push(connect);
      onConnect(connect);
    });
  }

  /** As `identity`; `onConnect` answers each request. */
  static async start(identity: string, onConnect: (connect: Connect) => void): Promise<ForeignServer> {
    const { keyPem, chainPem, rootsPem } = await materialOf(identity);
    const secured = { key: keyPem, cert: chainPem, ca: [...rootsPem], requestCert: true, rejectUnauthorized: true };
    const server = http2.createSecureServer({ ...secured, minVersion: 'TLSv1.3' });
    return new ForeignServer(server, onConnect);
  }

  async listen(): Promise<HostPort> {
    this.#server.listen(0, '127.0.0.1');
    await once(this.#server, 'listening');
    return { ip: '127.0.0.1', port: (this.#server.address() as net.AddressInfo).port };
  }

  /** Serves whoever speaks TLS at the other end of `stream`. */
  serve(stream: Duplex): void {
    this.#server.emit('connection', stream);
  }

  /** As when the process is killed: no GOAWAY, no RST_STREAM. */
  die(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const session of this.sessions) session.destroy();
    if (!this.#server.listening) return;
    this.#server.close();
    await once(this.#server, 'close');
  }
}

/** Answers 200 and doubles nothing: what comes goes back, until the client ends. */
export function echoBack({ stream }: Connect): void {
  stream.respond({ ':status': 200 });
  stream.pipe(stream);
}

function clientOf(stream: http2.ServerHttp2Stream): string {
  const socket = stream.session?.socket as { getPeerX509Certificate?: () => { subjectAltName?: string } } | undefined;
  return socket?.getPeerX509Certificate?.().subjectAltName ?? '';
}
