/**
 * TLS of a channel: server authentication only. grpc-js's own credentials cannot dial an IP address (node:tls refuses one
 * as server name), have no deadline, and hide why a chain was refused; its extension point is used instead.
 */
import type { Socket } from 'node:net';
import tls from 'node:tls';
import { CallCredentials, ChannelCredentials } from '@grpc/grpc-js';
import { type Clock, deadline } from '../base/clock.ts';
import { canonicalIp } from '../base/ip.ts';
import { chainVerdictText } from '../wire/x509-verdict.ts';

export interface TlsClientOptions {
  /** The server must prove this name, or `altHostname`. */
  readonly host: string;
  readonly altHostname?: string;
  readonly rootsPem: readonly string[];
  /** Versions, suites and groups; default: TLS 1.3 as node:tls has it. */
  readonly context?: tls.SecureContextOptions | undefined;
  readonly timeoutMs: number;
}

const ALPN_H2 = 'h2';

export class TlsChannelCredentials extends ChannelCredentials {
  readonly #options: TlsClientOptions;
  readonly #clock: Clock;
  readonly #context: tls.SecureContext;

  /** Throws when the roots cannot be read. */
  constructor(options: TlsClientOptions, clock: Clock) {
    super();
    this.#options = options;
    this.#clock = clock;
    const { context, rootsPem } = options;
    this.#context = tls.createSecureContext({ minVersion: 'TLSv1.3', ...context, ca: [...rootsPem] });
  }

  override _isSecure(): boolean {
    return true;
  }

  override _equals(other: ChannelCredentials): boolean {
    return this === other;
  }

  override _createSecureConnector(
    ...[, , callCredentials = CallCredentials.createEmpty()]: Parameters<ChannelCredentials['_createSecureConnector']>
  ): ReturnType<ChannelCredentials['_createSecureConnector']> {
    return {
      connect: async (socket) => ({ socket: await this.#handshake(socket), secure: true }),
      waitForReady: async () => undefined,
      getCallCredentials: () => callCredentials,
      destroy: () => undefined,
    };
  }

  async #handshake(socket: Socket): Promise<tls.TLSSocket> {
    const { host, timeoutMs } = this.#options;
    const { promise, resolve, reject } = Promise.withResolvers<tls.TLSSocket>();
    const secured = tls.connect({
      socket,
      secureContext: this.#context,
      ALPNProtocols: [ALPN_H2],
      servername: canonicalIp(host) === undefined ? host : '',
      checkServerIdentity: (_name, certificate) => this.#checkName(certificate),
    });
    secured.once('secureConnect', () => resolve(secured));
    secured.on('error', (error) => reject(readable(error)));
    secured.once('close', () => reject(new Error('the server closed the connection during the TLS handshake')));
    const late = `the TLS handshake did not finish in ${timeoutMs} ms`;
    using _deadline = deadline(this.#clock, timeoutMs, () => reject(new Error(late)));
    try {
      const settled = await promise;
      if (settled.alpnProtocol !== ALPN_H2) throw new Error('the server does not offer HTTP/2 (ALPN h2)');
      return settled;
    } catch (error) {
      secured.destroy();
      throw error;
    }
  }

  #checkName(certificate: tls.PeerCertificate): Error | undefined {
    const { host, altHostname } = this.#options;
    const names = altHostname === undefined ? [host] : [host, altHostname];
    if (names.some((name) => tls.checkServerIdentity(name, certificate) === undefined)) return undefined;
    return new Error(
      `the server certificate is for ${certificate.subjectaltname ?? 'no name'}, not for ${names.join(' or ')}`,
    );
  }
}

function readable(error: Error & { readonly code?: unknown; readonly reason?: unknown }): Error {
  const verdict = typeof error.code === 'string' ? chainVerdictText(error.code) : undefined;
  if (verdict !== undefined) return new Error(verdict, { cause: error });
  // OpenSSL's short reason; its message has file names and numbers around it.
  return typeof error.reason === 'string' ? new Error(`TLS handshake: ${error.reason}`, { cause: error }) : error;
}
