/** The `forwarded` header of HBONE (RFC 7239, as ztunnel writes it). Telemetry only: `for=` is never trusted, so never read. */
import { formatHostPort, type HostPort } from '../base/ip.ts';
import { isHostname } from './hbone.ts';

/** Longest header value looked at, characters: an address, a host name of 253 and room for foreign parameters. */
export const MAX_FORWARDED_CHARS = 1_024;

/** `for="<client>"`, and `;host=<hostname>` when the destination service is known and its name fits a header. */
export function formatForwarded(client: HostPort, serviceHostname?: string): string {
  const forClient = `for="${formatHostPort(client)}"`;
  return serviceHostname !== undefined && isHostname(serviceHostname)
    ? `${forClient};host=${serviceHostname}`
    : forClient;
}

/** The `host=` parameter, quotes removed; `undefined` when absent, empty, or the value is not plain ASCII. */
export function parseForwardedHost(value: string): string | undefined {
  if (value.length > MAX_FORWARDED_CHARS || !/^[\x20-\x7e]*$/.test(value)) return undefined;
  const parameter = value.split(';').find((part) => part.startsWith('host='));
  const host = parameter === undefined ? '' : unquoted(parameter.slice('host='.length));
  return host === '' ? undefined : host;
}

/** No regular expression: for a thousand quotes in the middle `"+$` tries each of them with each. */
function unquoted(text: string): string {
  let start = 0;
  let end = text.length;
  while (text[start] === '"') start += 1;
  while (end > start && text[end - 1] === '"') end -= 1;
  return text.slice(start, end);
}
