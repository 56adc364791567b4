/** Mutual TLS over an existing stream, as server and as client, each with a deadline and one outcome. */
import type { Duplex } from 'node:stream';
import tls from 'node:tls';
import { type Clock, deadline } from '../base/clock.ts';
import { MeshError, toMeshError } from '../base/errors.ts';
import { parseSpiffeId } from '../model/spiffe.ts';
import type { TlsMaterial } from '../model/verdict.ts';
import { checkClientCertificate, checkServerCertificate } from './peer-check.ts';
import type { Revocation } from './revocation.ts';
import { ALPN_H2, type TlsContexts } from './tls-context.ts';
import { handshakeTimeout, tlsFailure, wrongAlpn } from './tls-failure.ts';

/** As long as a TCP connect may take. The reference sets no bound. */
const HANDSHAKE_TIMEOUT_MS = 10_000;

export interface HandshakeOptions {
  readonly contexts: TlsContexts;
  readonly clock: Clock;
  /** Default 10 s. */
  readonly timeoutMs?: number;
  /** Who is not to be accepted in spite of a good chain; absent = nobody. */
  readonly revocation?: Revocation | undefined;
}

export interface AcceptedTls {
  readonly socket: tls.TLSSocket;
  /** First SPIFFE ID of the verified client certificate. */
  readonly peerIdentity?: string;
}

/**
 * Server side of the handshake. Rejects with `CV-PEER-CERT`, `CV-PEER-REVOKED`, `CV-PEER-TRUST-DOMAIN`,
 * `CV-TLS-HANDSHAKE` or `CV-TLS-TIMEOUT`; `socket` is then destroyed. Errors after success end the socket and need no listener.
 */
export async function acceptTls(
  socket: Duplex,
  material: TlsMaterial,
  options: HandshakeOptions,
): Promise<AcceptedTls> {
  const tlsSocket = await underDeadline(socket, options, (settle) => {
    // A FIN in the middle of the handshake is its end, whatever the caller wants later.
    const { allowHalfOpen } = socket;
    socket.allowHalfOpen = false;
    offer(options.contexts.server(material), socket, {
      done: (secured) => {
        secured.allowHalfOpen = allowHalfOpen;
        settle.done(secured);
      },
      failed: settle.failed,
    });
    socket.allowHalfOpen = allowHalfOpen;
  });
  const peerIdentity = checked(tlsSocket, (der) => {
    options.revocation?.check(tlsSocket, material.rootsPem, 'destination');
    return checkClientCertificate(der, parseSpiffeId(material.identity)?.trustDomain);
  });
  return { socket: tlsSocket, ...(peerIdentity !== undefined && { peerIdentity }) };
}

/**
 * Client side. The server must prove one of `expected` (SPIFFE URIs; empty fails). Rejects as `acceptTls` does, with
 * `CV-PEER-IDENTITY` for another identity. A server that refuses *our* certificate says so only after this resolved (TLS 1.3).
 */
export async function connectTls(
  socket: Duplex,
  material: TlsMaterial,
  expected: readonly string[],
  options: HandshakeOptions,
): Promise<tls.TLSSocket> {
  const tlsSocket = await underDeadline(socket, options, (settle) => {
    const secured = tls.connect({
      socket,
      secureContext: options.contexts.client(material),
      ALPNProtocols: [ALPN_H2],
      rejectUnauthorized: true,
      // `checkServerCertificate` compares identities; names of hosts are never consulted.
      checkServerIdentity: () => undefined,
    });
    // node:tls would translate the whole chain into objects for `checkServerIdentity`: 1 ms, a third of the handshake.
    Object.defineProperty(secured, 'getPeerCertificate', { configurable: true, value: () => ({}) });
    const onError = (error: Error): void => settle.failed(tlsFailure(error));
    const onClose = (): void => settle.failed(tlsFailure(new Error('the connection was closed')));
    secured.on('error', ignore).once('error', onError).once('close', onClose);
    secured.once('secureConnect', () => {
      Reflect.deleteProperty(secured, 'getPeerCertificate');
      secured.off('error', onError).off('close', onClose);
      settle.done(secured);
    });
  });
  checked(tlsSocket, () => options.revocation?.check(tlsSocket, material.rootsPem, 'source'));
  provedIdentity(tlsSocket, expected);
  return tlsSocket;
}

/** The one of `expected` that the server of a finished handshake proved; destroys the socket when it is none. */
export function provedIdentity(socket: tls.TLSSocket, expected: readonly string[]): string {
  return checked(socket, (der) => checkServerCertificate(der, expected));
}

interface Settle {
  readonly done: (socket: tls.TLSSocket) => void;
  readonly failed: (error: MeshError) => void;
}

/** Runs one handshake: first outcome wins, and every failure destroys `socket`. */
async function underDeadline(
  socket: Duplex,
  { clock, timeoutMs = HANDSHAKE_TIMEOUT_MS }: HandshakeOptions,
  start: (settle: Settle) => void,
): Promise<tls.TLSSocket> {
  socket.on('error', ignore);
  if (socket.destroyed) throw tlsFailure(new Error('the connection was closed before the handshake'));
  const { promise, resolve, reject } = Promise.withResolvers<tls.TLSSocket>();
  using _deadline = deadline(clock, timeoutMs, () => reject(handshakeTimeout(timeoutMs)));
  try {
    start({ done: resolve, failed: reject });
    const secured = await promise;
    secured.on('error', ignore);
    return secured;
  } catch (error) {
    socket.destroy();
    throw toMeshError(error, 'CV-TLS-HANDSHAKE');
  }
}

/**
 * Hands `socket` to the server. node:tls reports the outcome through `emit` of the server object it was called on; a
 * view of the shared server with its own `emit` ties the outcome to this one socket.
 */
function offer(server: tls.Server, socket: Duplex, settle: Settle): void {
  const emit = (event: string, ...args: unknown[]): boolean => {
    const [first, second] = args;
    if (event === 'secureConnection' && first instanceof tls.TLSSocket) settle.done(first);
    if (event === 'tlsClientError' && first instanceof Error) settle.failed(tlsFailure(first, verdictOf(second)));
    return true;
  };
  const view: tls.Server = Object.create(server, { emit: { value: emit } });
  server.emit.call(view, 'connection', socket);
}

function verdictOf(socket: unknown): string | undefined {
  const error: unknown = socket instanceof tls.TLSSocket ? socket.authorizationError : undefined;
  return typeof error === 'string' ? error : undefined;
}

/** Judges the peer after its chain was verified; destroys the socket when the judgement is no. */
function checked<T>(socket: tls.TLSSocket, judge: (der: Uint8Array) => T): T {
  try {
    if (!socket.authorized) throw tlsFailure(new Error('the peer is not authorized'));
    if (socket.alpnProtocol !== ALPN_H2) throw wrongAlpn();
    const certificate = socket.getPeerX509Certificate();
    if (certificate === undefined) throw new MeshError('CV-PEER-CERT', 'tls handshake error: peer has no certificate');
    return judge(certificate.raw);
  } catch (error) {
    socket.destroy();
    throw toMeshError(error, 'CV-PEER-CERT');
  }
}

function ignore(): void {}
