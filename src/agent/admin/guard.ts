/**
 * Who may use the admin port. It has no credentials: being on the loopback of the agent is the permission, so a web page
 * in somebody's browser (DNS rebinding, cross-site POST) must not be able to borrow it.
 */
import { ipBytes, isLoopback } from '../../base/ip.ts';
import type { HttpRequest } from './http-server.ts';

/** Why the request is refused, or `undefined`. A request that changes something needs a loopback name as its host. */
export function refusalOf(request: HttpRequest, isStateChanging: boolean): string | undefined {
  const hosts = request.headers('host');
  const host = hostName(hosts[0] ?? '');
  if (hosts.length !== 1 || host === undefined) return 'one valid Host header is needed';
  if (isStateChanging ? !isLocal(host) : !isLocal(host) && ipBytes(host) === undefined) {
    return `host "${host}" is not this agent; use localhost, 127.0.0.1 or [::1]`;
  }
  const origins = request.headers('origin');
  if (isStateChanging && !origins.every(isLocalOrigin)) return 'requests of other web sites are refused';
  return undefined;
}

function isLocal(host: string): boolean {
  return host === 'localhost' || isLoopback(host);
}

function isLocalOrigin(origin: string): boolean {
  const authority = /^https?:\/\/([^/]+)$/.exec(origin)?.[1];
  const host = authority === undefined ? undefined : hostName(authority);
  return host !== undefined && isLocal(host);
}

/** The host of `host[:port]`, without brackets and in lower case. */
function hostName(text: string): string | undefined {
  const match = /^(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]+))(?::\d{1,5})?$/.exec(text.toLowerCase());
  return match?.[1] ?? match?.[2];
}
