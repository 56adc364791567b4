/** The only contact with the kernel beyond what Node offers, as one interface. `linux.ts` is the real one. */
import type { HostPort } from '../base/ip.ts';
import type { UnixListener, UnixListenOptions, UnixSocket, UnixSocketType } from './unix-contract.ts';

/** An open network namespace. Disposing closes its descriptor. */
export interface Netns extends Disposable {
  /** Where it was opened from, for messages. */
  readonly path: string;
  /** `st_dev` and `st_ino` of the namespace file: equal means the same namespace. */
  readonly id: { readonly device: bigint; readonly inode: bigint };
  /** -1 once disposed. */
  readonly fd: number;
}

export interface KeepaliveOptions {
  readonly idleSeconds: number;
  readonly intervalSeconds: number;
  readonly probes: number;
  /** TCP_USER_TIMEOUT, milliseconds; absent = not set. */
  readonly userTimeoutMs?: number;
}

export interface ListenOptions {
  /** `::` listens on both families when `isDualStack`; otherwise one family. */
  readonly address: string;
  readonly port: number;
  readonly mark?: number;
  /** Best effort, as the reference; `onTransparent` is told whether it worked. */
  readonly isTransparent?: boolean;
  readonly isReusePort?: boolean;
  /** Inherited by accepted sockets. */
  readonly keepalive?: KeepaliveOptions;
  readonly backlog?: number;
}

export interface DialOptions {
  readonly family: 4 | 6;
  readonly mark?: number;
  /** Bind to this non-local address first (IP_TRANSPARENT + IP_FREEBIND), port chosen by the kernel. */
  readonly transparentSourceIp?: string;
  readonly keepalive?: KeepaliveOptions;
}

export interface ToolResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Packets with `mark` (under `mask`) are delivered on this machine, whatever their destination: a rule and a route. */
export interface PolicyRoute {
  readonly family: 4 | 6;
  readonly mark: number;
  readonly mask: number;
  readonly preference: number;
  /** 1..255. */
  readonly table: number;
}

export interface PolicyRouteState {
  readonly hasRule: boolean;
  readonly hasRoute: boolean;
}

/** A listening or connected TCP socket as the kernel lists it. */
export interface TcpSocket {
  readonly local: HostPort;
  /** Meaningless for a listener. */
  readonly peer: HostPort;
  readonly isListener: boolean;
  readonly mark: number;
  readonly inode: number;
  /** Address family and identity for `closeTcp`, as the kernel wants them back. */
  readonly family: number;
  readonly id: Uint8Array;
}

/**
 * All calls throw `MeshError('CV-SYS' | 'CV-NETNS' | 'CV-BIND', …)` naming the call and the errno; no descriptor is
 * left open on any failure. A thread that cannot return to its own netns aborts the process.
 */
export interface Sys {
  openNetns(path: string): Netns;
  /** Takes the descriptor over, also when it throws: closed unless it is a network namespace. */
  adoptNetns(fd: number): Netns;
  /** The namespace that the machine booted with, whoever may see it under which path. */
  isMachineNetns(netns: Netns): boolean;
  /** A new, empty, nameless namespace, gone once disposed: for trying things out. */
  scratchNetns(): Netns;
  /** Bound, listening, non-blocking, close-on-exec descriptor for `net.Server.listen({ fd })`. */
  listenTcp(netns: Netns | undefined, options: ListenOptions): { readonly fd: number; readonly isTransparent: boolean };
  /** Unconnected, non-blocking descriptor; hand it to `dialTcp` of `sys/tcp.ts`. */
  socketTcp(netns: Netns | undefined, options: DialOptions): { readonly fd: number; readonly isSpoofed: boolean };
  /** Bound, non-blocking UDP descriptor. */
  socketUdp(netns: Netns | undefined, options: ListenOptions): number;
  /** SO_ORIGINAL_DST, then IP6T_SO_ORIGINAL_DST, canonicalised; `undefined` when the socket was not redirected. */
  originalDestination(fd: number): HostPort | undefined;
  /** `ip`, canonical, is an address of the namespace itself: what is sent to it there stays there. */
  isOwnAddress(netns: Netns | undefined, ip: string): boolean;
  /** The other end of a TCP socket, canonicalised, also after a reset. */
  peerAddress(fd: number): HostPort | undefined;
  /** Main thread only, as `listenUnix`. */
  connectUnix(path: string, type: UnixSocketType): UnixSocket;
  /** A socket file left at `path` is removed first, whoever made it. */
  listenUnix(path: string, options: UnixListenOptions): UnixListener;
  close(fd: number): void;
  /** Runs a tool inside `netns` (argv form, no shell), feeding `input`. Bounded in time and output. */
  runInNetns(netns: Netns | undefined, argv: readonly string[], input?: string): Promise<ToolResult>;
  policyRouteState(netns: Netns | undefined, route: PolicyRoute): PolicyRouteState;
  /** Adds what is missing. Idempotent. */
  addPolicyRoute(netns: Netns | undefined, route: PolicyRoute): void;
  /** Idempotent. */
  removePolicyRoute(netns: Netns | undefined, route: PolicyRoute): void;
  tcpSockets(netns: Netns | undefined): TcpSocket[];
  /** Inodes of the sockets that this process holds. Looks at every descriptor. */
  ownSocketInodes(): ReadonlySet<number>;
  /** Ends someone else's connection; false when it is gone already, or the kernel cannot. */
  closeTcp(netns: Netns | undefined, socket: TcpSocket): boolean;
  /** Equal texts: no nft transaction, and no change of policy rules or of routes in `table`, lies between. Some 0.1 ms. */
  fingerprint(netns: Netns | undefined, table: number): string;
  /** A file of `/proc/net` of the namespace; empty when there is none: a kernel without the feature. */
  procNet(netns: Netns | undefined, file: string): string;
  /** `/proc/sys/net/ipv6/conf/<interface>/disable_ipv6` of the namespace is not 1. */
  hasIpv6(netns: Netns | undefined, networkInterface: string): boolean;
}
