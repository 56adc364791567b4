/** What two agents of one node say to each other while one takes the place of the other (`README.md`). JSON, one object a packet. */
import { MeshError, messageOf } from '../../base/errors.ts';
import type { InheritedConnection, InheritedPair, SuspendedTunnel, TunnelNeeds } from '../../proxy/inheritance.ts';
import type { ClaimedStream, StreamClaim } from '../../proxy/settings.ts';
import type { BytesUnderWay } from '../../tunnel/resumable-stream.ts';

/** Versions that this build speaks. */
export const VERSIONS = { min: 2, max: 3 } as const;
/** The first that knows `claim`. */
export const CLAIMS_SINCE = 3;
/** One packet. */
export const MAX_PACKET_BYTES = 64 * 1024;
/** Of one `bytes`, before base64. */
export const PIECE_BYTES = 45 * 1024;
/**
 * From a request to its whole answer. As the next two it is for a process that hangs: of one that dies the kernel tells at once,
 * and to give up one that is only slow costs all that has moved.
 */
export const ANSWER_TIMEOUT_MS = 60_000;
/** An heir that says nothing for this long is given up: it may be waiting for its pods. */
export const SILENCE_TIMEOUT_MS = 120_000;
/** From an offer to its acceptance: meanwhile nobody carries the connections offered. */
export const OFFER_TIMEOUT_MS = 60_000;
/** From a message to its place in the queue of a reader: what is half told cannot be told again. */
export const SEND_TIMEOUT_MS = 60_000;
/** File in the run directory. */
export const SOCKET_FILE = 'hand-over.sock';

/** From the heir. */
export type Request =
  | { readonly type: 'hello'; readonly min: number; readonly max: number; readonly build: string }
  /** Close the servers of admin, metrics and readiness: the heir needs their ports. */
  | { readonly type: 'yield-servers' }
  /** Say what you know: certificates and the mesh. */
  | { readonly type: 'inherit' }
  /** Offer the listeners of a pod. */
  | { readonly type: 'take'; readonly pod: string }
  /** Offer some of the connections of a pod whose listeners were given. */
  | { readonly type: 'more'; readonly pod: string }
  /** Offer the suspended stream that a client looks for, of such a pod; also after `left`. Since version 3. */
  | { readonly type: 'claim'; readonly pod: string; readonly claim: StreamClaim }
  /** All of the offer has arrived, and is the heir's as soon as it reads `given`. */
  | { readonly type: 'accept'; readonly pod: string }
  /** Leave the node. */
  | { readonly type: 'commit' };

/** From the agent that leaves. */
export type Reply =
  | { readonly type: 'welcome'; readonly version: number; readonly build: string; readonly pid: number }
  | { readonly type: 'refused'; readonly reason: string }
  | { readonly type: 'yielded' }
  /** A part of the JSON of all, in base64. */
  | { readonly type: 'certificates'; readonly part: string }
  /** Ends what there is to know, with the descriptor of the mesh log when there is one. */
  | { readonly type: 'inherited' }
  /** With its descriptor. */
  | { readonly type: 'listener'; readonly port: number }
  /** What is under way in the suspended stream of this token, which follows: the next piece. */
  | { readonly type: 'bytes'; readonly token: string; readonly to: keyof BytesUnderWay; readonly base64: string }
  /** With descriptors of the downstream and the upstream socket of each, or of its only one when it has a `tunnel`. */
  | { readonly type: 'connections'; readonly connections: readonly MovedConnection[] }
  /** Ends an offer: how many of each were sent, how many connections are left here, and whether none of this pod will follow. */
  | {
      readonly type: 'offered';
      readonly listeners: number;
      readonly connections: number;
      readonly held: number;
      readonly isLast: boolean;
      /** With listeners: tunnels that are worth opening before connections are asked for. */
      readonly needs?: TunnelNeeds;
      /** Answers `claim` when nothing is offered. */
      readonly missing?: Extract<ClaimedStream, string>;
    }
  | { readonly type: 'given' }
  /** With the descriptor of the run lock. */
  | { readonly type: 'left'; readonly held: number }
  /** After that, when it has changed, and now and then: who carries what could not move. The sender first. */
  | { readonly type: 'held'; readonly agents: readonly HeldAgent[] };

/** An agent that was replaced. */
export interface HeldAgent {
  readonly pid: number;
  readonly build: string;
  /** Connections that could not move when it left, and of those, how many it ended by itself. */
  readonly held: number;
  readonly cut: number;
  /** Open now. */
  readonly connections: number;
  /** Wall time. */
  readonly leftAtMs: number;
  readonly endsAtMs: number;
}

/** Of an `InheritedConnection`, what is neither descriptor nor payload. */
export type MovedConnection = Pick<InheritedConnection, 'start' | 'pausedAtMs'> & {
  readonly tunnel?: Pick<SuspendedTunnel, 'token' | 'wayBack'>;
  readonly outbound?: InheritedPair['outbound'];
};

const REQUESTS = [
  'hello',
  'yield-servers',
  'inherit',
  'take',
  'more',
  'claim',
  'accept',
  'commit',
] as const satisfies readonly Request['type'][];
const REPLIES = [
  'welcome',
  'refused',
  'yielded',
  'certificates',
  'inherited',
  'listener',
  'bytes',
  'connections',
  'offered',
  'given',
  'left',
  'held',
] as const satisfies readonly Reply['type'][];

/** About one pod. */
const POD_REQUESTS: ReadonlySet<string> = new Set<Request['type']>(['take', 'more', 'claim', 'accept']);

export function encode(message: Request | Reply): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(message));
}

/** What one packet takes of descriptors and of text, with room for what is around it. */
const PACKET_CONNECTIONS = 120;
const PACKET_CONNECTION_BYTES = MAX_PACKET_BYTES - 1_024;

/** In parts that fit one packet each. */
export function* inPackets<Each>(connections: readonly Each[]): Iterable<readonly Each[]> {
  let part: Each[] = [];
  let bytes = 0;
  for (const connection of connections) {
    const more = Buffer.byteLength(JSON.stringify(connection));
    if (part.length === PACKET_CONNECTIONS || (part.length > 0 && bytes + more > PACKET_CONNECTION_BYTES)) {
      yield part;
      part = [];
      bytes = 0;
    }
    part.push(connection);
    bytes += more;
  }
  if (part.length > 0) yield part;
}

/** Throws `CV-HAND-OVER`: whoever is there speaks something else. */
export function decodeRequest(data: Uint8Array): Request {
  const message = parse(data, REQUESTS);
  const { type } = message;
  const isWhole =
    type === 'hello'
      ? isCount(message['min']) && isCount(message['max']) && typeof message['build'] === 'string'
      : (!POD_REQUESTS.has(type) || typeof message['pod'] === 'string') &&
        (type !== 'claim' || isClaim(message['claim']));
  if (!isWhole) throw foreign(`a ${type} without its fields`);
  return message as Request;
}

/** As `decodeRequest`. A connection is believed: the other end is root on this node, and of a version we agreed on. */
export function decodeReply(data: Uint8Array): Reply {
  return parse(data, REPLIES) as Reply;
}

/** The version both ends speak; `undefined`: none. */
export function commonVersion(theirs: { readonly min: number; readonly max: number }): number | undefined {
  const version = Math.min(theirs.max, VERSIONS.max);
  return version >= Math.max(theirs.min, VERSIONS.min) ? version : undefined;
}

function parse(
  data: Uint8Array,
  known: readonly string[],
): { readonly type: string; readonly [field: string]: unknown } {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(data));
  } catch (error) {
    throw foreign(messageOf(error));
  }
  if (typeof value !== 'object' || value === null || !('type' in value)) throw foreign('no message');
  const { type } = value;
  if (typeof type !== 'string' || !known.includes(type)) throw foreign('a message of an unknown type');
  return { ...value, type };
}

function isClaim(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false;
  const { podUid, token, question } = value as Partial<Record<keyof StreamClaim, unknown>>;
  return typeof podUid === 'string' && typeof token === 'string' && typeof question === 'object' && question !== null;
}

function isCount(value: unknown): boolean {
  return Number.isInteger(value);
}

function foreign(detail: string): MeshError {
  return new MeshError('CV-HAND-OVER', `the other end of the hand-over socket is not an agent: ${detail}`);
}
