/** What resolv.conf(5) says about nameservers; the rest of it was done by the application's own resolver. Pure. */
import { canonicalIp, type HostPort, isLoopback } from '../base/ip.ts';

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
  const lines = text.split('\n').map((line) => line.trim().split(/\s+/));
  const options = lines.flatMap(([keyword, ...words]) => (keyword === 'options' ? words : []));
  return {
    nameservers: lines
      .flatMap(([keyword, address = '']) => (keyword === 'nameserver' ? (canonicalIp(address) ?? []) : []))
      // Loopback is another place in each namespace: the agent's resolver does not listen on the pod's.
      .filter((ip) => !isLoopback(ip))
      .slice(0, MAX_NAMESERVERS)
      .map((ip) => ({ ip, port: DNS_PORT })),
    timeoutMs: 1_000 * option(options, 'timeout', TIMEOUT_SECONDS),
    attempts: option(options, 'attempts', ATTEMPTS),
  };
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
