/** Requests and responses as HTTP/2 header lists (RFC 9113 §8.2, §8.3, §8.5). */
import type { HeaderField } from './hpack-table.ts';

/** Values in order of arrival, by lower-case name. */
export type HeaderValues = ReadonlyMap<string, readonly string[]>;

export interface RequestHead {
  readonly method: string;
  readonly authority?: string;
  readonly path?: string;
  readonly scheme?: string;
  readonly headers: HeaderValues;
}

export interface ResponseHead {
  readonly status: number;
  readonly headers: HeaderValues;
}

/** `malformed` says which rule is broken; the stream is then reset with PROTOCOL_ERROR (RFC 9113 §8.1.1). */
export type Checked<Head> = { readonly head: Head } | { readonly malformed: string };

/** A token (RFC 9110 §5.6.2) without upper case. */
const NAME = /^[!#$%&'*+\-.^_`|~0-9a-z]+$/;
/** Tab, visible characters and obs-text, no white space at the ends (RFC 9113 §8.2.1). */
const VALUE = /^(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?$/;
/** RFC 9113 §8.2.2. */
const CONNECTION_SPECIFIC: ReadonlySet<string> = new Set([
  'connection',
  'proxy-connection',
  'keep-alive',
  'transfer-encoding',
  'upgrade',
]);
const REQUEST_PSEUDO: ReadonlySet<string> = new Set([':method', ':authority', ':path', ':scheme', ':protocol']);
const RESPONSE_PSEUDO: ReadonlySet<string> = new Set([':status']);

export function readRequest(fields: readonly HeaderField[]): Checked<RequestHead> {
  const split = splitFields(fields, REQUEST_PSEUDO);
  if (typeof split === 'string') return { malformed: split };
  const { pseudo, headers } = split;
  const method = pseudo.get(':method');
  if (method === undefined) return { malformed: 'no :method' };
  const malformed = method === 'CONNECT' ? connectFault(pseudo) : requestFault(pseudo);
  if (malformed !== undefined) return { malformed };
  const authority = pseudo.get(':authority');
  const path = pseudo.get(':path');
  const scheme = pseudo.get(':scheme');
  return {
    head: {
      method,
      ...(authority !== undefined && { authority }),
      ...(path !== undefined && { path }),
      ...(scheme !== undefined && { scheme }),
      headers,
    },
  };
}

export function readResponse(fields: readonly HeaderField[]): Checked<ResponseHead> {
  const split = splitFields(fields, RESPONSE_PSEUDO);
  if (typeof split === 'string') return { malformed: split };
  const status = split.pseudo.get(':status') ?? '';
  if (!/^[1-9]\d\d$/.test(status)) return { malformed: 'no valid :status' };
  return { head: { status: Number(status), headers: split.headers } };
}

export function readTrailers(fields: readonly HeaderField[]): Checked<HeaderValues> {
  const split = splitFields(fields, new Set());
  return typeof split === 'string' ? { malformed: split } : { head: split.headers };
}

/** Extended CONNECT was not offered, so `:protocol` is as wrong as `:scheme` and `:path`. */
function connectFault(pseudo: ReadonlyMap<string, string>): string | undefined {
  if (pseudo.size !== 2) return 'a CONNECT has :method and :authority, nothing else';
  return (pseudo.get(':authority') ?? '') === '' ? 'a CONNECT without :authority' : undefined;
}

function requestFault(pseudo: ReadonlyMap<string, string>): string | undefined {
  if (pseudo.has(':protocol')) return ':protocol without CONNECT';
  if (!pseudo.has(':scheme') || (pseudo.get(':path') ?? '') === '') return 'a request needs :scheme and :path';
  return undefined;
}

type Split = { readonly pseudo: Map<string, string>; readonly headers: Map<string, string[]> };

function splitFields(fields: readonly HeaderField[], allowed: ReadonlySet<string>): Split | string {
  const pseudo = new Map<string, string>();
  const headers = new Map<string, string[]>();
  for (const { name, value } of fields) {
    if (!VALUE.test(value)) return 'a header value has forbidden characters';
    if (name.startsWith(':')) {
      if (!allowed.has(name)) return 'an unknown pseudo-header';
      if (headers.size > 0) return 'a pseudo-header after a header';
      if (pseudo.has(name)) return 'a repeated pseudo-header';
      pseudo.set(name, value);
      continue;
    }
    if (!NAME.test(name)) return 'a header name has forbidden characters';
    if (CONNECTION_SPECIFIC.has(name) || (name === 'te' && value !== 'trailers')) return 'a connection-specific header';
    const values = headers.get(name);
    if (values === undefined) headers.set(name, [value]);
    else values.push(value);
  }
  return { pseudo, headers };
}
