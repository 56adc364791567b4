/** Connections as packets of the hand-over socket, and back: what is under way in a suspended stream travels before it. */
import { MeshError } from '../../base/errors.ts';
import { type InheritedConnection, socketsOf } from '../../proxy/inheritance.ts';
import type { BytesUnderWay } from '../../tunnel/resumable-stream.ts';
import { inPackets, type MovedConnection, PIECE_BYTES, type Reply } from './protocol.ts';

export interface Packet {
  readonly message: Extract<Reply, { type: 'bytes' | 'connections' }>;
  readonly fds: readonly number[];
}

const DIRECTIONS = ['toApp', 'toTunnel'] as const satisfies readonly (keyof BytesUnderWay)[];
/** The window of one stream, and what was read beyond it. */
const MAX_UNDER_WAY_BYTES = 16 * 1024 * 1024;
/** What the smallest piece counts for: it is kept, too. */
const LEAST_PIECE_BYTES = 1024;

export function* packetsOf(connections: readonly InheritedConnection[]): Iterable<Packet> {
  for (const connection of connections) if ('tunnel' in connection) yield* bytesOf(connection.tunnel);
  const entries = connections.map((connection) => ({ head: headOf(connection), fds: socketsOf(connection) }));
  for (const part of inPackets(entries)) {
    const heads = part.map(({ head }) => head);
    yield { message: { type: 'connections', connections: heads }, fds: part.flatMap(({ fds }) => fds) };
  }
}

function* bytesOf(tunnel: BytesUnderWay & { readonly token: string }): Iterable<Packet> {
  for (const to of DIRECTIONS) {
    for (let at = 0; at < tunnel[to].length; at += PIECE_BYTES) {
      const base64 = Buffer.from(tunnel[to].subarray(at, at + PIECE_BYTES)).toString('base64');
      yield { message: { type: 'bytes', token: tunnel.token, to, base64 }, fds: [] };
    }
  }
}

function headOf(connection: InheritedConnection): MovedConnection {
  const { start, pausedAtMs } = connection;
  if (!('tunnel' in connection)) {
    const { outbound } = connection;
    return { start, pausedAtMs, ...(outbound && { outbound }) };
  }
  const { token, wayBack } = connection.tunnel;
  return { start, pausedAtMs, tunnel: { token, wayBack } };
}

/** How many descriptors it comes with. */
export function socketsWith({ tunnel }: MovedConnection): number {
  return tunnel === undefined ? 2 : 1;
}

/** Puts the connections of one offer together. */
export class ConnectionPackets {
  /** Whoever made this one owns their descriptors. */
  readonly connections: InheritedConnection[] = [];
  readonly #pieces = new Map<string, Record<keyof BytesUnderWay, Buffer[]>>();
  #bytes = 0;

  /** Throws `CV-HAND-OVER`. */
  add(message: Packet['message'], fds: readonly number[]): void {
    if (message.type === 'bytes') {
      this.#addBytes(message);
      return;
    }
    let at = 0;
    for (const moved of message.connections) {
      const { tunnel, outbound, ...head } = moved;
      const [first = -1, second = -1] = fds.slice(at);
      at += socketsWith(moved);
      const sockets = { downstream: first, upstream: second };
      if (tunnel === undefined) this.connections.push({ ...head, sockets, ...(outbound && { outbound }) });
      else this.connections.push({ ...head, socket: first, tunnel: { ...tunnel, ...this.#takeBytes(tunnel.token) } });
    }
  }

  #addBytes({ token, to, base64 }: Extract<Reply, { type: 'bytes' }>): void {
    const pieces = this.#pieces.get(token) ?? { toApp: [], toTunnel: [] };
    this.#pieces.set(token, pieces);
    const piece = Buffer.from(base64, 'base64');
    pieces[to].push(piece);
    this.#bytes += Math.max(piece.length, LEAST_PIECE_BYTES);
    if (this.#bytes > MAX_UNDER_WAY_BYTES) {
      throw new MeshError('CV-HAND-OVER', `more than ${MAX_UNDER_WAY_BYTES} bytes are under way in one offer`);
    }
  }

  #takeBytes(token: string): BytesUnderWay {
    const { toApp, toTunnel } = this.#pieces.get(token) ?? { toApp: [], toTunnel: [] };
    this.#pieces.delete(token);
    return { toApp: Buffer.concat(toApp), toTunnel: Buffer.concat(toTunnel) };
  }
}
