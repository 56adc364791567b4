/** What one process leaves to the next of a pod's data plane. Plain data, but for its descriptors: whoever holds it owns them. */
import type { ConnectionStart } from '../telemetry/traffic.ts';
import type { MovedSockets } from '../tunnel/relay.ts';

/** A listening socket, with the connections that wait in it. */
export interface InheritedListener {
  readonly port: number;
  readonly fd: number;
}

/** A connection between two sockets, all of whose bytes so far were passed on. */
export interface InheritedConnection {
  /** With what was counted so far. */
  readonly start: ConnectionStart;
  readonly sockets: MovedSockets;
  /** Wall time since when nothing flows. */
  readonly pausedAtMs: number;
}

export interface Inheritance {
  readonly listeners: readonly InheritedListener[];
  readonly connections: readonly InheritedConnection[];
}

export const NO_INHERITANCE: Inheritance = { listeners: [], connections: [] };

export function descriptorsOf({ listeners, connections }: Inheritance): readonly number[] {
  const sockets = connections.flatMap(({ sockets: { downstream, upstream } }) => [downstream, upstream]);
  return [...listeners.map(({ fd }) => fd), ...sockets];
}
