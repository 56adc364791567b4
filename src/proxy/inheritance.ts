/** What one process leaves to the next of a pod's data plane. Plain data, but for its descriptors: whoever holds it owns them. */
import type { InboundQuestion, TunnelRoute } from '../model/verdict.ts';
import type { ConnectionStart } from '../telemetry/traffic.ts';
import type { TunnelKey } from '../tunnel/client-pool.ts';
import type { MovedSockets } from '../tunnel/relay.ts';
import type { BytesUnderWay } from '../tunnel/resumable-stream.ts';

/** A listening socket, with the connections that wait in it. */
export interface InheritedListener {
  readonly port: number;
  readonly fd: number;
}

interface Paused {
  /** With what was counted so far. */
  readonly start: ConnectionStart;
  /** Wall time since when nothing flows. */
  readonly pausedAtMs: number;
}

/** A connection between two sockets, all of whose bytes so far were passed on. */
export interface InheritedPair extends Paused {
  readonly sockets: MovedSockets;
  /** Of a same-node short cut: the connection of the pod that called. `start` is that of the pod that was called. */
  readonly outbound?: ConnectionStart;
}

/** A connection between a socket and a stream that both ends have suspended. */
export interface InheritedStream extends Paused {
  /** Of the application. */
  readonly socket: number;
  readonly tunnel: SuspendedTunnel;
}

export type InheritedConnection = InheritedPair | InheritedStream;

/** How a suspended stream finds a tunnel again: its client asks through a new one, its server waits for that. */
export type WayBack =
  | { readonly kind: 'ask'; readonly route: TunnelRoute }
  | { readonly kind: 'wait'; readonly question: HboneQuestion };

export type HboneQuestion = NonNullable<InboundQuestion['hbone']>;

export interface SuspendedTunnel extends BytesUnderWay {
  /** Good for one resumption by the identity it was given to. */
  readonly token: string;
  readonly wayBack: WayBack;
}

/** Tunnels that streams of a pod will go on in: opened before they come, nobody waits for them. */
export interface TunnelNeeds {
  readonly out: readonly TunnelNeed[];
  /** How many others will open to it. */
  readonly in: number;
}

/** Tunnels of one kind. */
export interface TunnelNeed {
  readonly key: TunnelKey;
  readonly streams: number;
}

export interface Inheritance {
  readonly listeners: readonly InheritedListener[];
  readonly connections: readonly InheritedConnection[];
}

export const NO_NEEDS: TunnelNeeds = { out: [], in: 0 };

/** Of several threads or processes; equal tunnels are needed once for each. */
export function sumOfNeeds(all: readonly TunnelNeeds[]): TunnelNeeds {
  return { out: all.flatMap(({ out }) => out), in: all.reduce((sum, needs) => sum + needs.in, 0) };
}

export const NO_INHERITANCE: Inheritance = { listeners: [], connections: [] };

export function descriptorsOf({ listeners, connections }: Inheritance): readonly number[] {
  return [...listeners.map(({ fd }) => fd), ...connections.flatMap(socketsOf)];
}

/** The descriptors of a connection, downstream first. */
export function socketsOf(connection: InheritedConnection): readonly number[] {
  if ('tunnel' in connection) return [connection.socket];
  return [connection.sockets.downstream, connection.sockets.upstream];
}

/** With other descriptors for the same sockets, in the order of `socketsOf`. */
export function withSockets(connection: InheritedConnection, fds: readonly number[]): InheritedConnection {
  const [first = -1, second = -1] = fds;
  if ('tunnel' in connection) return { ...connection, socket: first };
  return { ...connection, sockets: { downstream: first, upstream: second } };
}
