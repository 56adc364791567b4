/** SOCKS version 5 (RFC 1928), the side of the server: what a client says, and what it is told. Bytes in, messages out. */
import { MeshError } from '../base/errors.ts';
import { formatIp } from '../base/ip.ts';
import { type HboneAuthority, parseHboneAuthority } from './hbone.ts';

/** One message at the start of what was read. */
export interface SocksMessage<T> {
  readonly value: T;
  readonly byteLength: number;
}

export interface SocksRequest {
  readonly command: number;
  readonly target: HboneAuthority;
}

export const SOCKS_CONNECT = 1;

export const SOCKS_METHOD = { none: 0, unacceptable: 0xff } as const;

export const SOCKS_REPLY = {
  succeeded: 0,
  generalFailure: 1,
  notAllowed: 2,
  networkUnreachable: 3,
  hostUnreachable: 4,
  connectionRefused: 5,
  /** Also for everything that breaks the protocol, as the reference has it. */
  commandNotSupported: 7,
} as const;

export type SocksReply = (typeof SOCKS_REPLY)[keyof typeof SOCKS_REPLY];

const VERSION = 5;
const IPV4 = 1;
const NAME = 3;
const IPV6 = 4;

/** The methods a client offers; `undefined` while bytes are missing: the longest greeting has 257. */
export function readSocksGreeting(bytes: Uint8Array): SocksMessage<readonly number[]> | undefined {
  requireVersion(bytes);
  const [, count] = bytes;
  if (count === undefined || bytes.length < 2 + count) return undefined;
  return { value: [...bytes.subarray(2, 2 + count)], byteLength: 2 + count };
}

/** What a client wants; `undefined` while bytes are missing: the longest request has 262. */
export function readSocksRequest(bytes: Uint8Array): SocksMessage<SocksRequest> | undefined {
  requireVersion(bytes);
  const [, command, reserved, type, first] = bytes;
  if (reserved !== undefined && reserved !== 0) throw malformed('the reserved octet of a request is not zero');
  if (command === undefined || type === undefined) return undefined;
  const host = hostBytes(type, first);
  if (host === undefined || bytes.length < host.end + 2) return undefined;
  const port = ((bytes[host.end] ?? 0) << 8) | (bytes[host.end + 1] ?? 0);
  const target = targetOf(bytes.subarray(host.start, host.end), type, port);
  if (target === undefined) throw malformed('a request for an address that cannot be');
  return { value: { command, target }, byteLength: host.end + 2 };
}

export function socksMethod(method: number): Uint8Array {
  return Uint8Array.of(VERSION, method);
}

/** Bound address and port are not told: 0.0.0.0:0. */
export function socksReply(reply: SocksReply): Uint8Array {
  return Uint8Array.of(VERSION, reply, 0, IPV4, 0, 0, 0, 0, 0, 0);
}

/** Where the host of a request is; `undefined` while its length is missing. */
function hostBytes(type: number, first: number | undefined): { start: number; end: number } | undefined {
  switch (type) {
    case IPV4:
      return { start: 4, end: 8 };
    case IPV6:
      return { start: 4, end: 20 };
    case NAME:
      return first === undefined ? undefined : { start: 5, end: 5 + first };
    default:
      throw malformed(`address type ${type}`);
  }
}

function targetOf(host: Uint8Array, type: number, port: number): HboneAuthority | undefined {
  if (type !== NAME) return port === 0 ? undefined : { kind: 'address', ip: formatIp(host), port };
  const name = new TextDecoder('latin1').decode(host).replace(/\.$/, '');
  // What is an address in text is one: a name must not be read in two ways.
  return parseHboneAuthority(name.includes(':') ? `[${name}]:${port}` : `${name}:${port}`);
}

function requireVersion([version]: Uint8Array): void {
  if (version !== undefined && version !== VERSION) throw malformed(`version ${version}`);
}

function malformed(problem: string): MeshError {
  return new MeshError('CV-WIRE-MALFORMED', `SOCKS: ${problem}`);
}
