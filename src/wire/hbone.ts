/** The HBONE CONNECT `:authority`: `ip:port` or `hostname:port` (RFC 9113 §8.5), nothing else. */
import { formatHostPort, type HostPort, parseHostPort } from '../base/ip.ts';

export type HboneAuthority =
  | ({ readonly kind: 'address' } & HostPort)
  | { readonly kind: 'hostname'; readonly hostname: string; readonly port: number };

/** Longest piece of a peer's text that goes into a message, characters. */
const MAX_QUOTED_CHARS = 128;
/** Longest host name (RFC 1035 §2.3.4), characters. */
const MAX_HOSTNAME = 253;
/** One DNS label as Kubernetes and service entries use them, wildcard and underscore included. */
const HOSTNAME =
  /^(?:\*|[a-zA-Z0-9_](?:[a-zA-Z0-9_-]{0,61}[a-zA-Z0-9_])?)(?:\.[a-zA-Z0-9_](?:[a-zA-Z0-9_-]{0,61}[a-zA-Z0-9_])?)*$/;

/** True for text that may stand as a host name in an authority or a header: no spaces, quotes or control characters. */
export function isHostname(text: string): boolean {
  return text.length <= MAX_HOSTNAME && HOSTNAME.test(text);
}

/** `undefined` unless `text` is exactly `ip:port`, `[ipv6]:port` or `hostname:port` with a port of 1..65535. */
export function parseHboneAuthority(text: string): HboneAuthority | undefined {
  if (text.length > MAX_HOSTNAME + ':65535'.length) return undefined;
  const address = parseHostPort(text);
  if (address !== undefined) return address.port === 0 ? undefined : { kind: 'address', ...address };
  const colon = text.lastIndexOf(':');
  const hostname = text.slice(0, Math.max(0, colon));
  const port = parsePort(text.slice(colon + 1));
  // All digits and dots is a broken IPv4 address, not a name: two readings of one authority would be a hole.
  if (port === undefined || !isHostname(hostname) || /^[0-9.]+$/.test(hostname)) return undefined;
  return { kind: 'hostname', hostname, port };
}

/** What is wrong with `text`, which is no authority, in the words of ztunnel. */
export function authorityProblem(text: string): string {
  const shown = text.slice(0, MAX_QUOTED_CHARS);
  if (text === '') return `no valid authority pseudo header: ${shown}`;
  const hasPort = /:\d+$/.test(text);
  return hasPort ? `invalid CONNECT address ${shown}` : `no valid service port in authority header: ${shown}`;
}

export function formatHboneAuthority(authority: HboneAuthority): string {
  return authority.kind === 'address' ? formatHostPort(authority) : `${authority.hostname}:${authority.port}`;
}

function parsePort(text: string): number | undefined {
  if (!/^[1-9]\d{0,4}$/.test(text)) return undefined;
  const port = Number(text);
  return port <= 65_535 ? port : undefined;
}
