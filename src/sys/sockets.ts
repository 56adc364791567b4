/** Makes sockets inside a network namespace: listeners, unconnected TCP, bound UDP. */
import { MeshError } from '../base/errors.ts';
import { formatHostPort, type HostPort, ipFamily } from '../base/ip.ts';
import { callError, lastErrno, libc } from './libc.ts';
import { inNetns } from './netns.ts';
import {
  AF_INET,
  AF_INET6,
  decodeSockaddr,
  encodeSockaddr,
  SOCK_FLAGS,
  SOCK_STREAM,
  SOCKADDR_IN_BYTES,
  SOCKADDR_IN6_BYTES,
} from './sockaddr.ts';
import {
  IP_BIND_ADDRESS_NO_PORT,
  IP_FREEBIND,
  IP_TRANSPARENT,
  IP6T_SO_ORIGINAL_DST,
  IPV6_FREEBIND,
  IPV6_TRANSPARENT,
  IPV6_V6ONLY,
  SO_MARK,
  SO_ORIGINAL_DST,
  SO_PEERNAME,
  SO_REUSEADDR,
  SO_REUSEPORT,
  setKeepalive,
  setOption,
  TCP_NODELAY,
  tryGetBytes,
  trySetOption,
} from './sockopt.ts';
import type { DialOptions, ListenOptions, Netns } from './sys.ts';

const SOCK_DGRAM = 2;
/** As the reference for listeners in a pod. */
const DEFAULT_BACKLOG = 128;
const V6_ANY = '::';
/** Of a datagram that is never sent. */
const ANY_PORT = 9;

export function listenTcp(netns: Netns | undefined, options: ListenOptions): { fd: number; isTransparent: boolean } {
  return withSocket(netns, ipFamily(options.address), SOCK_STREAM, (fd) => {
    if (options.mark !== undefined) setOption(fd, SO_MARK, options.mark);
    if (options.isReusePort === true) trySetOption(fd, SO_REUSEPORT, 1);
    // The v4 option also on a v6 socket: one bit of the kernel's socket serves both families.
    const isTransparent = options.isTransparent === true && trySetOption(fd, IP_TRANSPARENT, 1);
    setOption(fd, SO_REUSEADDR, 1);
    setOption(fd, TCP_NODELAY, 1);
    if (options.keepalive !== undefined) setKeepalive(fd, options.keepalive);
    bindTo(fd, options);
    if (libc.listen(fd, options.backlog ?? DEFAULT_BACKLOG) !== 0) throw callError('CV-BIND', 'listen', place(options));
    return { fd, isTransparent };
  });
}

export function socketTcp(netns: Netns | undefined, options: DialOptions): { fd: number; isSpoofed: boolean } {
  const sourceIp = options.transparentSourceIp;
  const family = sourceIp === undefined ? options.family : ipFamily(sourceIp);
  return withSocket(netns, family, SOCK_STREAM, (fd) => {
    if (options.mark !== undefined) setOption(fd, SO_MARK, options.mark);
    setOption(fd, TCP_NODELAY, 1);
    if (options.keepalive !== undefined) setKeepalive(fd, options.keepalive);
    return { fd, isSpoofed: sourceIp !== undefined && tryBindForeign(fd, family, sourceIp) };
  });
}

export function socketUdp(netns: Netns | undefined, options: ListenOptions): number {
  return withSocket(netns, ipFamily(options.address), SOCK_DGRAM, (fd) => {
    if (options.mark !== undefined) setOption(fd, SO_MARK, options.mark);
    if (options.isReusePort === true) setOption(fd, SO_REUSEPORT, 1);
    bindTo(fd, options);
    return fd;
  });
}

/** Conntrack's view of where the client wanted to go. IPv4 first: a dual-stack socket answers it for mapped clients. */
export function originalDestination(fd: number): HostPort | undefined {
  const found =
    tryGetBytes(fd, SO_ORIGINAL_DST, SOCKADDR_IN6_BYTES) ?? tryGetBytes(fd, IP6T_SO_ORIGINAL_DST, SOCKADDR_IN6_BYTES);
  return found === undefined ? undefined : decodeSockaddr(found);
}

/** The other end of a TCP socket, also when a reset came already and getpeername(2) only says ENOTCONN. */
export function peerAddress(fd: number): HostPort | undefined {
  // The kernel takes no longer buffer than the address is.
  const found = tryGetBytes(fd, SO_PEERNAME, SOCKADDR_IN6_BYTES) ?? tryGetBytes(fd, SO_PEERNAME, SOCKADDR_IN_BYTES);
  return found === undefined ? undefined : decodeSockaddr(found);
}

/**
 * `ip` belongs to an interface of `netns`: the kernel would answer from that very address. Nothing is sent; what a sysctl
 * lets a socket bind to has no part in it.
 */
export function isOwnAddress(netns: Netns | undefined, ip: string): boolean {
  const address = encodeSockaddr({ ip, port: ANY_PORT });
  if (address === undefined) return false;
  return withSocket(netns, ipFamily(ip), SOCK_DGRAM, (fd) => {
    try {
      return libc.connect(fd, address, address.length) === 0 && localAddress(fd)?.ip === ip;
    } finally {
      libc.close(fd);
    }
  });
}

/** Address a descriptor is bound to; `undefined` when it is no IP socket. */
export function localAddress(fd: number): HostPort | undefined {
  const address = new Uint8Array(SOCKADDR_IN6_BYTES);
  const length = new Uint32Array([SOCKADDR_IN6_BYTES]);
  return libc.getsockname(fd, address, length) === 0 ? decodeSockaddr(address) : undefined;
}

/** The socket belongs to `netns` from its creation on; all else works from any namespace, but only while inside is it cheap to be sure. */
function withSocket<T>(netns: Netns | undefined, family: 4 | 6, type: number, prepare: (fd: number) => T): T {
  return inNetns(netns, () => {
    const fd = libc.socket(family === 4 ? AF_INET : AF_INET6, type | SOCK_FLAGS, 0);
    if (fd < 0) throw callError('CV-SYS', 'socket', { family });
    try {
      return prepare(fd);
    } catch (error) {
      libc.close(fd);
      throw error;
    }
  });
}

function bindTo(fd: number, { address, port }: ListenOptions): void {
  const where = place({ address, port });
  const sockaddr = encodeSockaddr({ ip: address, port });
  if (sockaddr === undefined) throw new MeshError('CV-BIND', 'the listen address is not an IP address', where);
  // The default comes from a sysctl that the pod owns.
  if (address === V6_ANY) setOption(fd, IPV6_V6ONLY, 0);
  if (libc.bind(fd, sockaddr, sockaddr.length) !== 0) throw callError('CV-BIND', 'bind', where);
}

function place({ address, port }: { readonly address: string; readonly port: number }): { address: string } {
  return { address: formatHostPort({ ip: address, port }) };
}

/** Best effort as the reference: a refusal leaves an ordinary socket, and the connection shows the pod's own address. */
function tryBindForeign(fd: number, family: 4 | 6, ip: string): boolean {
  const [transparent, freebind] = family === 4 ? [IP_TRANSPARENT, IP_FREEBIND] : [IPV6_TRANSPARENT, IPV6_FREEBIND];
  if (!trySetOption(fd, transparent, 1) || !trySetOption(fd, freebind, 1)) return false;
  if (tryBindBorrowed(fd, ip)) {
    // Now, not before: it must not share the port with another of ours, but with a listener that the application makes later.
    trySetOption(fd, SO_REUSEADDR, 1);
    return true;
  }
  // The port is chosen at connect then, so that it must be unique per destination only and not per source address.
  trySetOption(fd, IP_BIND_ADDRESS_NO_PORT, 1);
  return tryBind(fd, ip, 0);
}

/**
 * Ports that the owner of the address hardly uses itself: beside the ephemeral ports of Linux (32,768 to 60,999), above those of
 * services. Were it one of its live ports, conntrack would take both connections for one: the new one would get no answer, and
 * the old one could be reset.
 */
const BORROWED_PORTS = [
  { first: 16_000, count: 16_000 },
  { first: 61_000, count: 4_536 },
] as const;
const BORROWED_COUNT = BORROWED_PORTS.reduce((sum, { count }) => sum + count, 0);
/**
 * Ports looked at. Each one of a connection that ended within the last minute is taken, 6,000 at 100 connections a second of one
 * client; when none of so many is free the kernel chooses, among ports that may be its own.
 */
const BORROW_TRIES = 64;

function tryBindBorrowed(fd: number, ip: string): boolean {
  for (let tries = 0; tries < BORROW_TRIES; tries += 1) {
    if (tryBind(fd, ip, borrowedPort(Math.floor(Math.random() * BORROWED_COUNT)))) return true;
    if (lastErrno() !== 'EADDRINUSE') return false;
  }
  return false;
}

function borrowedPort(at: number): number {
  const [low, high] = BORROWED_PORTS;
  return at < low.count ? low.first + at : high.first + at - low.count;
}

function tryBind(fd: number, ip: string, port: number): boolean {
  const sockaddr = encodeSockaddr({ ip, port });
  return sockaddr !== undefined && libc.bind(fd, sockaddr, sockaddr.length) === 0;
}
