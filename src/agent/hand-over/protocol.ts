/** What two agents of one node say to each other while one takes the place of the other (`README.md`). JSON, one object a packet. */
import { MeshError, messageOf } from '../../base/errors.ts';
import type { ConnectionStart } from '../../telemetry/traffic.ts';

/** Versions that this build speaks. */
export const VERSIONS = { min: 1, max: 1 } as const;
/** One packet; a connection needs about one KiB. */
export const MAX_PACKET_BYTES = 64 * 1024;
/** From a request to its whole answer. */
export const ANSWER_TIMEOUT_MS = 10_000;
/** An heir that says nothing for this long is given up: it may be waiting for its pods. */
export const SILENCE_TIMEOUT_MS = 60_000;
/** From an offer to its acceptance: meanwhile nobody carries the connections offered. */
export const OFFER_TIMEOUT_MS = 5_000;
/** File in the run directory. */
export const SOCKET_FILE = 'hand-over.sock';

/** From the heir. */
export type Request =
  | { readonly type: 'hello'; readonly min: number; readonly max: number; readonly build: string }
  /** Close the servers of admin, metrics and readiness: the heir needs their ports. */
  | { readonly type: 'yield-servers' }
  /** Offer the listeners and connections of a pod. */
  | { readonly type: 'take'; readonly pod: string }
  /** All of the offer has arrived, and is the heir's as soon as it reads `given`. */
  | { readonly type: 'accept'; readonly pod: string }
  /** Leave the node. */
  | { readonly type: 'commit' };

/** From the agent that leaves. */
export type Reply =
  | { readonly type: 'welcome'; readonly version: number; readonly build: string; readonly pid: number }
  | { readonly type: 'refused'; readonly reason: string }
  | { readonly type: 'yielded' }
  /** With its descriptor. */
  | { readonly type: 'listener'; readonly port: number }
  /** With descriptors of its downstream and its upstream socket. */
  | { readonly type: 'connection'; readonly start: ConnectionStart }
  /** Ends an offer: how many of each were sent, how many connections cannot move, and since when (wall time) nobody accepts. */
  | {
      readonly type: 'offered';
      readonly listeners: number;
      readonly connections: number;
      readonly held: number;
      readonly sinceMs: number;
    }
  | { readonly type: 'given' }
  /** With the descriptor of the run lock. */
  | { readonly type: 'left'; readonly held: number };

const REQUESTS = ['hello', 'yield-servers', 'take', 'accept', 'commit'] as const satisfies readonly Request['type'][];
const REPLIES = [
  'welcome',
  'refused',
  'yielded',
  'listener',
  'connection',
  'offered',
  'given',
  'left',
] as const satisfies readonly Reply['type'][];

export function encode(message: Request | Reply): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(message));
}

/** Throws `CV-HAND-OVER`: whoever is there speaks something else. */
export function decodeRequest(data: Uint8Array): Request {
  const message = parse(data, REQUESTS);
  const { type } = message;
  const isWhole =
    type === 'hello'
      ? isCount(message['min']) && isCount(message['max']) && typeof message['build'] === 'string'
      : (type !== 'take' && type !== 'accept') || typeof message['pod'] === 'string';
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

function isCount(value: unknown): boolean {
  return Number.isInteger(value);
}

function foreign(detail: string): MeshError {
  return new MeshError('CV-HAND-OVER', `the other end of the hand-over socket is not an agent: ${detail}`);
}
