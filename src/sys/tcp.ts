/** Node sockets on top of descriptors made in a network namespace: accept and dial. */
import net from 'node:net';
import { type Clock, deadline } from '../base/clock.ts';
import { type ErrorFields, MeshError } from '../base/errors.ts';
import { formatHostPort, type HostPort } from '../base/ip.ts';
import type { ReasonCode } from '../base/reasons.ts';
import { type Arrival, acceptArrivals, socketArrival } from './arrivals.ts';
import { duplicate } from './duplicate.ts';
import { acceptLending, lendingSocket } from './lending-socket.ts';
import { libc } from './libc.ts';
import { resetOnClose, TCP_INFO, tryGetBytes } from './sockopt.ts';
import type { DialOptions, Netns, Sys } from './sys.ts';

export interface AcceptHandlers {
  /** The socket is paused and half-open capable, and its errors cannot end the process even when nobody listens. */
  readonly onConnection: (socket: net.Socket) => void;
  /** The listener itself failed (for example: out of descriptors). It goes on accepting. */
  readonly onError?: (error: Error) => void;
  /** Accepted sockets read by lending one shared buffer: for relays, not for TLS. */
  readonly isLending?: boolean;
}

/**
 * Serves a descriptor of `Sys.listenTcp`, and owns it: `close` on the server closes it. Accepted sockets have the options
 * of the listener (mark, keepalive, no delay) by inheritance in the kernel, without a system call each.
 */
export function listenOn(fd: number, { onConnection, onError, isLending = false }: AcceptHandlers): net.Server {
  const accept = (socket: net.Socket): void => {
    socket.on('error', ignore);
    onConnection(socket);
  };
  const server = net.createServer({ allowHalfOpen: true, pauseOnConnect: true }, accept);
  server.on('error', onError ?? ignore);
  server.listen({ fd });
  if (isLending) acceptLending(server, accept);
  return server;
}

export interface ArrivalHandlers extends Pick<AcceptHandlers, 'onError'> {
  readonly onArrival: (arrival: Arrival) => void;
}

/** The same for peers that have to speak first: no socket is made before they do. */
export function listenForArrivals(fd: number, { onArrival, ...handlers }: ArrivalHandlers): net.Server {
  const onConnection = (socket: net.Socket): void => onArrival(socketArrival(socket));
  const server = listenOn(fd, { ...handlers, onConnection });
  acceptArrivals(server, onArrival);
  return server;
}

/** A second descriptor of a listener or a socket, the caller's to close: its queue outlives the server. Throws `CV-SYS`. */
export function duplicateOf(owner: net.Server | net.Socket | undefined): number {
  return duplicate((owner && socketFd(owner)) ?? -1);
}

export interface DialLimits {
  readonly timeoutMs: number;
  readonly clock: Clock;
  /** Aborting gives the dial up; the promise rejects with the reason of the signal when that is a `MeshError`. */
  readonly signal?: AbortSignal;
  /** How failures are called; the application's codes by default. */
  readonly codes?: DialCodes;
  /** The socket reads by lending one shared buffer: for relays, not for TLS. */
  readonly isLending?: boolean;
}

export interface DialCodes {
  readonly timeout: ReasonCode;
  readonly refused: ReasonCode;
}

const APPLICATION_CODES: DialCodes = { timeout: 'CV-APP-TIMEOUT', refused: 'CV-APP-REFUSED' };

/** Errno values that mean "no answer in time" rather than "no". */
const TIMEOUT_ERRNOS: ReadonlySet<string> = new Set(['ETIMEDOUT']);

/**
 * A connected socket, paused, half-open capable, whose errors cannot end the process. Rejects with a `MeshError` and
 * leaves nothing open.
 */
export async function dialTcp(
  sys: Sys,
  netns: Netns | undefined,
  address: HostPort,
  options: DialOptions,
  limits: DialLimits,
): Promise<net.Socket> {
  return (await dialTcpSpoofed(sys, netns, address, options, limits)).socket;
}

export interface Dialled {
  readonly socket: net.Socket;
  /** False when `transparentSourceIp` was asked for and the kernel refused. */
  readonly isSpoofed: boolean;
}

/** As `dialTcp`, and tells whether the foreign source address was taken. */
export async function dialTcpSpoofed(
  sys: Sys,
  netns: Netns | undefined,
  address: HostPort,
  options: DialOptions,
  limits: DialLimits,
): Promise<Dialled> {
  throwIfAborted(limits.signal);
  const { fd, isSpoofed } = sys.socketTcp(netns, options);
  const socket = socketOf(sys, fd, limits.isLending ?? false);
  try {
    await connected(socket, address, limits);
    return { socket, isSpoofed };
  } catch (error) {
    socket.destroy();
    throw error;
  }
}

/** A connected socket that another process of ours had, and owns it: paused, half-open capable, lending. Throws when it is none. */
export function adoptTcp(sys: Sys, fd: number): net.Socket {
  return socketOf(sys, fd, true);
}

function socketOf(sys: Sys, fd: number, isLending: boolean): net.Socket {
  try {
    const plain = { fd, allowHalfOpen: true, manualStart: true } as net.SocketConstructorOpts;
    const socket = isLending ? lendingSocket({ fd, manualStart: true }) : new net.Socket(plain);
    socket.pause();
    return socket.on('error', ignore);
  } catch (error) {
    sys.close(fd);
    throw error;
  }
}

async function connected(socket: net.Socket, address: HostPort, limits: DialLimits): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const { codes = APPLICATION_CODES, signal, timeoutMs } = limits;
  const fields = { address: formatHostPort(address) };
  const timer = deadline(limits.clock, timeoutMs, () => reject(timeoutError(codes, fields, timeoutMs)));
  const onAbort = (): void => reject(abortError(signal));
  const onError = (error: NodeJS.ErrnoException): void => reject(dialError(codes, fields, error));
  signal?.addEventListener('abort', onAbort, { once: true });
  socket.once('connect', resolve).once('error', onError);
  try {
    socket.connect({ host: address.ip, port: address.port });
    await promise;
  } finally {
    timer[Symbol.dispose]();
    signal?.removeEventListener('abort', onAbort);
    socket.off('connect', resolve).off('error', onError);
  }
}

function timeoutError(codes: DialCodes, fields: ErrorFields, timeoutMs: number): MeshError {
  return new MeshError(codes.timeout, 'TCP connect got no answer in time', { ...fields, timeoutMs });
}

function dialError(codes: DialCodes, fields: ErrorFields, error: NodeJS.ErrnoException): MeshError {
  const errno = error.code ?? 'unknown';
  const code = TIMEOUT_ERRNOS.has(errno) ? codes.timeout : codes.refused;
  return new MeshError(code, `TCP connect failed with ${errno}`, { ...fields, errno }, { cause: error });
}

function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) throw abortError(signal);
}

function abortError(signal: AbortSignal | undefined): MeshError {
  const reason: unknown = signal?.reason;
  return reason instanceof MeshError ? reason : new MeshError('CV-DRAIN', 'the dial was given up');
}

/** Descriptor of a live socket or listener, for `Sys.originalDestination`; `undefined` once it is closed. */
export function socketFd(socket: net.Socket | net.Server): number | undefined {
  // Node has no public way to it; the field exists since 0.x and has no replacement.
  const handle = (socket as unknown as { readonly _handle?: { readonly fd?: number } | null })._handle;
  const fd = handle?.fd ?? -1;
  return fd < 0 ? undefined : fd;
}

/** Places in struct tcp_info (linux/tcp.h), 32 bits each: segments; ms; ms; bytes. The last came with Linux 4.6. */
const INFO = { unacked: 24, lastDataReceived: 52, lastAckReceived: 56, notSent: 144 } as const;
const INFO_BYTES = 148;

/** `undefined`: this is no TCP socket, or no more. */
function tcpInfo(socket: net.Socket): ((field: keyof typeof INFO) => number) | undefined {
  const fd = socketFd(socket);
  const info = fd === undefined ? undefined : tryGetBytes(fd, TCP_INFO, INFO_BYTES);
  if (info?.length !== INFO_BYTES) return undefined;
  const view = new DataView(info.buffer, info.byteOffset);
  return (field) => view.getUint32(INFO[field], true);
}

/**
 * How long ago the kernel of the peer last sent or acknowledged anything, which it does whether or not the process there gets any
 * CPU; `undefined`: this is no TCP socket, or no more.
 */
export function peerSilenceMs(socket: net.Socket): number | undefined {
  const info = tcpInfo(socket);
  return info && Math.min(info('lastDataReceived'), info('lastAckReceived'));
}

/** The kernel of the peer does not have yet all that was written to the kernel here, or its end. */
export function hasUndelivered(socket: net.Socket): boolean {
  const info = tcpInfo(socket);
  return info !== undefined && info('unacked') + info('notSent') > 0;
}

/** MSG_DONTWAIT | MSG_NOSIGNAL. */
const SEND_FLAGS = 0x4040;

/**
 * Gives `data` to the kernel past Node's queue, which must be empty; how many bytes it took. What is wrong with the socket
 * shows in the next write through Node. Bytes that are only lent need no copy this way.
 */
export function sendNow(socket: net.Socket, data: Uint8Array): number {
  const fd = socketFd(socket);
  return fd === undefined ? 0 : Math.max(0, libc.send(fd, data, data.length, SEND_FLAGS));
}

/**
 * Ends `socket` now, with a reset. Node's `resetAndDestroy` loses the descriptor, and never says `close`, when the write
 * half is just being shut down: libuv refuses the reset then.
 */
export function resetSocket(socket: net.Socket): void {
  const fd = socketFd(socket);
  if (fd !== undefined) resetOnClose(fd);
  socket.destroy();
}

function ignore(): void {}
