/** A and AAAA records with their TTL, from the agent's own nameservers and in its own netns. */
import dns from 'node:dns/promises';
import { MeshError, messageOf } from '../base/errors.ts';
import { canonicalIp, formatHostPort, type HostPort } from '../base/ip.ts';

export interface HostLookupOptions {
  /** Off: AAAA is not asked for. */
  readonly isIpv6Enabled: boolean;
  /** In place of those of the system's resolv.conf. */
  readonly servers?: readonly HostPort[] | undefined;
}

/** `ip`: canonical text. */
export interface HostRecord {
  readonly ip: string;
  readonly ttlMs: number;
}

/** Nothing when the name does not exist or has no address; rejects with `CV-NO-ADDRESS` when nobody could say. */
export type HostLookup = (hostname: string) => Promise<readonly HostRecord[]>;

/** For one try of one server; who waits for the lookup gives up earlier than all tries of several dead servers take. */
const TRY_TIMEOUT_MS = 1_500;
const TRIES = 2;

/** Both families at once: one that is answered is enough. */
export function hostLookup({ isIpv6Enabled, servers }: HostLookupOptions): HostLookup {
  const resolver = new dns.Resolver({ timeout: TRY_TIMEOUT_MS, tries: TRIES });
  if (servers !== undefined) resolver.setServers(servers.map(formatHostPort));
  return async (hostname) => {
    const answers = await Promise.allSettled([
      recordsOf(resolver.resolve4(hostname, { ttl: true })),
      ...(isIpv6Enabled ? [recordsOf(resolver.resolve6(hostname, { ttl: true }))] : []),
    ]);
    const records = answers.flatMap((answer) => (answer.status === 'fulfilled' ? answer.value : []));
    const failed = answers.find((answer) => answer.status === 'rejected');
    if (records.length === 0 && failed !== undefined) {
      throw new MeshError('CV-NO-ADDRESS', `dns lookup of ${hostname}: ${messageOf(failed.reason)}`);
    }
    return records;
  };
}

/** Answers that say there is nothing. */
const NOTHING: ReadonlySet<unknown> = new Set([dns.NODATA, dns.NOTFOUND]);

async function recordsOf(
  answer: Promise<readonly { readonly address: string; readonly ttl: number }[]>,
): Promise<HostRecord[]> {
  try {
    return (await answer).flatMap(({ address, ttl }) => {
      const ip = canonicalIp(address);
      return ip === undefined ? [] : [{ ip, ttlMs: ttl * 1_000 }];
    });
  } catch (error) {
    if (error instanceof Error && 'code' in error && NOTHING.has(error.code)) return [];
    throw error;
  }
}
