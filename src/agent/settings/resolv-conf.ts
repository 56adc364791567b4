/** What resolv.conf(5) says about nameservers; the rest of it was done by the application's own resolver. Pure. */
import { canonicalIp, type HostPort, isLoopback } from '../../base/ip.ts';

export interface ResolvConf {
  /** Those that can be reached from a pod, in order. */
  readonly nameservers: readonly HostPort[];
  /** Until a server is asked again. */
  readonly timeoutMs: number;
  /** How often each server is asked. */
  readonly attempts: number;
}

const DNS_PORT = 53;
/** Bounds and defaults of libc. */
const MAX_NAMESERVERS = 3;
const TIMEOUT_SECONDS = { fallback: 5, max: 30 } as const;
const ATTEMPTS = { fallback: 2, max: 5 } as const;

/** Lines that cannot be understood are ignored, as everywhere. */
export function parseResolvConf(text: string): ResolvConf {
  const options = linesOf(text).flatMap(([keyword, ...words]) => (keyword === 'options' ? words : []));
  return {
    // Loopback is another place in each namespace: the agent's resolver does not listen on the pod's.
    nameservers: addressesIn(text)
      .filter((ip) => !isLoopback(ip))
      .slice(0, MAX_NAMESERVERS)
      .map(atDnsPort),
    timeoutMs: 1_000 * option(options, 'timeout', TIMEOUT_SECONDS),
    attempts: option(options, 'attempts', ATTEMPTS),
  };
}

/** Those that the agent itself asks, loopback included. */
export function nameserversOf(text: string): readonly HostPort[] {
  return addressesIn(text).slice(0, MAX_NAMESERVERS).map(atDnsPort);
}

function linesOf(text: string): readonly (readonly string[])[] {
  return text.split('\n').map((line) => line.trim().split(/\s+/));
}

function addressesIn(text: string): readonly string[] {
  return linesOf(text).flatMap(([keyword, address = '']) =>
    keyword === 'nameserver' ? (canonicalIp(address) ?? []) : [],
  );
}

function atDnsPort(ip: string): HostPort {
  return { ip, port: DNS_PORT };
}

/** The last one counts, held within what libc does; anything but a number is ignored. */
function option(
  options: readonly string[],
  name: string,
  { fallback, max }: { readonly fallback: number; readonly max: number },
): number {
  const values = options.flatMap((word) => new RegExp(`^${name}:(\\d{1,9})$`).exec(word)?.[1] ?? []);
  return Math.min(Math.max(Number(values.at(-1) ?? fallback), 1), max);
}
