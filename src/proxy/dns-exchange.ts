/** One query to one nameserver from inside the pod's namespace, over UDP or TCP: its own socket, its own random port. */
import type net from 'node:net';
import type { Clock } from '../base/clock.ts';
import { MeshError, toMeshError } from '../base/errors.ts';
import { formatHostPort, type HostPort, ipFamily } from '../base/ip.ts';
import type { Netns, Sys } from '../sys/sys.ts';
import { dialTcp } from '../sys/tcp.ts';
import { datagramSocket } from '../sys/udp.ts';
import { DnsFrames, dnsFrame } from '../wire/dns-frames.ts';
import { isReplyTo } from '../wire/dns-query.ts';

export interface DnsPlace {
  readonly sys: Sys;
  readonly clock: Clock;
  readonly netns: Netns;
  readonly mark?: number | undefined;
}

export interface ExchangeEvents {
  readonly onReply: (reply: Uint8Array) => void;
  readonly onFailure: (error: MeshError) => void;
}

/** Calls one event at most, never before the call that made it returns; none once disposed. */
export interface DnsExchange extends Disposable {
  /** Asks once more, where the transport may have lost the question. */
  again(): void;
}

export type OpenExchange = (
  place: DnsPlace,
  server: HostPort,
  query: Uint8Array,
  events: ExchangeEvents,
) => DnsExchange;

/** The socket is connected, so the kernel drops what comes from elsewhere and tells when nobody listens there. */
export const udpExchange: OpenExchange = ({ sys, netns, mark }, server, query, { onReply, onFailure }) => {
  const family = ipFamily(server.ip);
  const address = family === 4 ? '0.0.0.0' : '::';
  const fd = sys.socketUdp(netns, { address, port: 0, ...(mark !== undefined && { mark }) });
  const socket = datagramSocket(sys, fd, family);
  let isOpen = true;
  const close = (): void => {
    if (isOpen) socket.close();
    isOpen = false;
  };
  const fail = (error: NodeJS.ErrnoException): void => {
    if (!isOpen) return;
    close();
    onFailure(unreachable(server, error));
  };
  const send = (): void => {
    if (isOpen) socket.send(query, (error) => error && fail(error));
  };
  socket.on('error', fail);
  socket.on('message', (reply) => {
    if (!isOpen || !isReplyTo(query, reply)) return;
    close();
    onReply(reply);
  });
  socket.connect(server.port, server.ip, (error?: Error) => (error ? fail(error) : send()));
  return { again: send, [Symbol.dispose]: close };
};

export function tcpExchange(timeoutMs: number): OpenExchange {
  return (place, server, query, { onReply, onFailure }) => {
    const abort = new AbortController();
    const { signal } = abort;
    askOverTcp(place, server, query, { signal, timeoutMs }).then(
      (reply) => !signal.aborted && onReply(reply),
      (error: unknown) => !signal.aborted && onFailure(toMeshError(error)),
    );
    return { again: () => {}, [Symbol.dispose]: () => abort.abort(new MeshError('CV-DRAIN', 'the query is over')) };
  };
}

async function askOverTcp(
  { sys, clock, netns, mark }: DnsPlace,
  server: HostPort,
  query: Uint8Array,
  limits: { readonly signal: AbortSignal; readonly timeoutMs: number },
): Promise<Uint8Array> {
  const options = { family: ipFamily(server.ip), ...(mark !== undefined && { mark }) };
  const codes = { timeout: 'CV-DNS-TIMEOUT', refused: 'CV-DNS-UNREACHABLE' } as const;
  const socket = await dialTcp(sys, netns, server, options, { ...limits, clock, codes });
  try {
    limits.signal.throwIfAborted();
    socket.write(dnsFrame(query));
    return await firstReply(socket, server, query, limits.signal);
  } finally {
    socket.destroy();
  }
}

async function firstReply(
  socket: net.Socket,
  server: HostPort,
  query: Uint8Array,
  signal: AbortSignal,
): Promise<Uint8Array> {
  const frames = new DnsFrames();
  const { promise, resolve, reject } = Promise.withResolvers<Uint8Array>();
  socket.on('data', (chunk: Buffer) => {
    const [reply] = frames.push(chunk);
    if (reply === undefined) return;
    if (isReplyTo(query, reply)) resolve(reply);
    else reject(unreachable(server, { message: 'answered something else' }));
  });
  socket.on('error', (error) => reject(unreachable(server, error)));
  socket.on('close', () => reject(unreachable(server, { message: 'closed the connection' })));
  signal.addEventListener('abort', () => socket.destroy(), { once: true });
  socket.on('end', () => socket.destroy()).resume();
  return await promise;
}

function unreachable(
  server: HostPort,
  { code, message }: { readonly code?: string; readonly message: string },
): MeshError {
  const address = formatHostPort(server);
  return new MeshError('CV-DNS-UNREACHABLE', `nameserver ${address}: ${code ?? message}`, { address });
}
