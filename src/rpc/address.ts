/** Where a gRPC server is, as settings spell it: `https://host:port`, `host:port` (https is meant), or `unix:///path`. */
import { canonicalIp } from '../base/ip.ts';
import { isHostname } from '../wire/hbone.ts';

export type RpcAddress =
  | { readonly kind: 'tls'; readonly host: string; readonly port: number }
  | { readonly kind: 'unix'; readonly path: string };

export type RpcAddressResult =
  | { readonly ok: true; readonly address: RpcAddress }
  /** What is wrong, and what to write instead. */
  | { readonly ok: false; readonly problem: string };

const HTTPS_PORT = 443;
/** sockaddr_un: 108 bytes with the terminating zero (unix(7)). */
const MAX_UNIX_PATH = 107;

/** Plaintext TCP is refused: credentials would travel in clear. */
export function parseRpcAddress(text: string): RpcAddressResult {
  if (text.startsWith('unix:')) return unixAddress(text.slice('unix:'.length));
  const scheme = /^([a-z][a-z0-9+.-]*):\/\//i.exec(text)?.[1]?.toLowerCase();
  if (scheme !== undefined && scheme !== 'https') {
    return refused(`scheme "${scheme}" would send credentials in clear; write https://host:port`);
  }
  return tlsAddress(scheme === undefined ? text : text.slice('https://'.length));
}

/** For logs and errors; `parseRpcAddress` reads it back. */
export function formatRpcAddress(address: RpcAddress): string {
  if (address.kind === 'unix') return `unix://${address.path}`;
  return `https://${address.host.includes(':') ? `[${address.host}]` : address.host}:${address.port}`;
}

function unixAddress(rest: string): RpcAddressResult {
  const path = rest.replace(/^\/\/(?=\/)/, '');
  if (!/^\/[^/\0][^\0]*$/.test(path) || Buffer.byteLength(path) > MAX_UNIX_PATH) {
    return refused(`"unix:${rest}" is not a socket; write unix:///path/of/socket (at most ${MAX_UNIX_PATH} bytes)`);
  }
  return { ok: true, address: { kind: 'unix', path } };
}

function tlsAddress(text: string): RpcAddressResult {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^:/[\]]+))(?::(\d{1,5}))?\/?$/.exec(text);
  const port = match?.[3] === undefined ? HTTPS_PORT : Number(match[3]);
  const host = match === null ? undefined : hostOf(match[1], match[2] ?? '');
  if (host === undefined || port < 1 || port > 65_535) {
    return refused(
      `"${text.slice(0, 300)}" is not host:port; write https://istiod.istio-system.svc:15012 or [fd00::1]:15012`,
    );
  }
  return { ok: true, address: { kind: 'tls', host, port } };
}

function hostOf(bracketed: string | undefined, bare: string): string | undefined {
  if (bracketed !== undefined) return bracketed.includes(':') ? canonicalIp(bracketed) : undefined;
  // All digits and dots is an IPv4 address or a mistake, never a name.
  return /^[0-9.]+$/.test(bare) ? canonicalIp(bare) : isHostname(bare) ? bare : undefined;
}

function refused(problem: string): RpcAddressResult {
  return { ok: false, problem };
}
