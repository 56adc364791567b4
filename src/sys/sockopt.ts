/** Socket options of Linux by name: socket(7), ip(7), ipv6(7), tcp(7). Numbers are those of x86-64 and arm64. */
import { callError, libc } from './libc.ts';
import type { KeepaliveOptions } from './sys.ts';

interface SocketOption {
  readonly name: string;
  readonly level: number;
  readonly option: number;
}

const SOL_IP = 0;
const SOL_SOCKET = 1;
const SOL_TCP = 6;
const SOL_IPV6 = 41;

export const SO_REUSEADDR: SocketOption = { name: 'SO_REUSEADDR', level: SOL_SOCKET, option: 2 };
export const SO_KEEPALIVE: SocketOption = { name: 'SO_KEEPALIVE', level: SOL_SOCKET, option: 9 };
const SO_LINGER: SocketOption = { name: 'SO_LINGER', level: SOL_SOCKET, option: 13 };
export const SO_REUSEPORT: SocketOption = { name: 'SO_REUSEPORT', level: SOL_SOCKET, option: 15 };
export const SO_RCVLOWAT: SocketOption = { name: 'SO_RCVLOWAT', level: SOL_SOCKET, option: 18 };
export const SO_PEERCRED: SocketOption = { name: 'SO_PEERCRED', level: SOL_SOCKET, option: 17 };
export const SO_PEERNAME: SocketOption = { name: 'SO_PEERNAME', level: SOL_SOCKET, option: 28 };
export const SO_MARK: SocketOption = { name: 'SO_MARK', level: SOL_SOCKET, option: 36 };
export const TCP_NODELAY: SocketOption = { name: 'TCP_NODELAY', level: SOL_TCP, option: 1 };
export const TCP_KEEPIDLE: SocketOption = { name: 'TCP_KEEPIDLE', level: SOL_TCP, option: 4 };
export const TCP_KEEPINTVL: SocketOption = { name: 'TCP_KEEPINTVL', level: SOL_TCP, option: 5 };
export const TCP_KEEPCNT: SocketOption = { name: 'TCP_KEEPCNT', level: SOL_TCP, option: 6 };
export const TCP_INFO: SocketOption = { name: 'TCP_INFO', level: SOL_TCP, option: 11 };
export const TCP_USER_TIMEOUT: SocketOption = { name: 'TCP_USER_TIMEOUT', level: SOL_TCP, option: 18 };
export const IP_FREEBIND: SocketOption = { name: 'IP_FREEBIND', level: SOL_IP, option: 15 };
export const IP_TRANSPARENT: SocketOption = { name: 'IP_TRANSPARENT', level: SOL_IP, option: 19 };
export const IP_BIND_ADDRESS_NO_PORT: SocketOption = { name: 'IP_BIND_ADDRESS_NO_PORT', level: SOL_IP, option: 24 };
export const IPV6_V6ONLY: SocketOption = { name: 'IPV6_V6ONLY', level: SOL_IPV6, option: 26 };
export const IPV6_TRANSPARENT: SocketOption = { name: 'IPV6_TRANSPARENT', level: SOL_IPV6, option: 75 };
export const IPV6_FREEBIND: SocketOption = { name: 'IPV6_FREEBIND', level: SOL_IPV6, option: 78 };
export const SO_ORIGINAL_DST: SocketOption = { name: 'SO_ORIGINAL_DST', level: SOL_IP, option: 80 };
export const IP6T_SO_ORIGINAL_DST: SocketOption = { name: 'IP6T_SO_ORIGINAL_DST', level: SOL_IPV6, option: 80 };

const INT_BYTES = 4;
const intValue = new Int32Array(1);
const lengthValue = new Uint32Array(1);

/** False when the kernel refuses; `lastErrno()` then says why. */
export function trySetOption(fd: number, { level, option }: SocketOption, value: number): boolean {
  intValue[0] = value;
  return libc.setsockopt(fd, level, option, intValue, INT_BYTES) === 0;
}

export function setOption(fd: number, option: SocketOption, value: number): void {
  if (!trySetOption(fd, option, value)) throw callError('CV-SYS', `setsockopt(${option.name})`);
}

export function getOption(fd: number, option: SocketOption): number {
  lengthValue[0] = INT_BYTES;
  if (libc.getsockopt(fd, option.level, option.option, intValue, lengthValue) !== 0) {
    throw callError('CV-SYS', `getsockopt(${option.name})`);
  }
  return intValue[0] ?? 0;
}

/** The bytes of a structured option, `undefined` when the kernel has none for this socket. */
export function tryGetBytes(fd: number, { level, option }: SocketOption, maxBytes: number): Uint8Array | undefined {
  const value = new Uint8Array(maxBytes);
  lengthValue[0] = maxBytes;
  if (libc.getsockopt(fd, level, option, value, lengthValue) !== 0) return undefined;
  return value.subarray(0, lengthValue[0]);
}

/** struct linger: on, for no time. */
const LINGER_ZERO = Int32Array.of(1, 0);

/** Closing the descriptor sends RST from now on, and drops what was not sent (socket(7)). */
export function resetOnClose(fd: number): void {
  libc.setsockopt(fd, SO_LINGER.level, SO_LINGER.option, LINGER_ZERO, LINGER_ZERO.byteLength);
}

/** Accepted sockets inherit all of these from their listener, so a listener set once costs nothing per connection. */
export function setKeepalive(fd: number, keepalive: KeepaliveOptions): void {
  setOption(fd, SO_KEEPALIVE, 1);
  setOption(fd, TCP_KEEPIDLE, keepalive.idleSeconds);
  setOption(fd, TCP_KEEPINTVL, keepalive.intervalSeconds);
  setOption(fd, TCP_KEEPCNT, keepalive.probes);
  if (keepalive.userTimeoutMs !== undefined) setOption(fd, TCP_USER_TIMEOUT, keepalive.userTimeoutMs);
}
