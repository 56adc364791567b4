/**
 * What of a pod's traffic its packet filter sends to us, read from the rules as tools list them: nftables, iptables on
 * nftables, or legacy iptables, whichever the CNI agent wrote. Pure.
 */
import { PORTS } from '../model/ports.ts';

export type Family = 4 | 6;

export interface Redirected {
  readonly direction: 'outbound' | 'inbound';
  readonly family: Family;
}

type Hook = 'output' | 'prerouting';

interface Chain {
  /** Set for a base chain of NAT: where the kernel enters. */
  hook?: Hook;
  readonly jumps: string[];
  readonly redirects: { readonly port: number | undefined; readonly families: readonly Family[] }[];
}

const WANTED = {
  output: { direction: 'outbound', port: PORTS.outbound },
  prerouting: { direction: 'inbound', port: PORTS.inboundPlaintext },
} as const satisfies Record<Hook, { direction: Redirected['direction']; port: number }>;

/** From `nft list ruleset`, of any families. */
export function seenByNft(listing: string): Redirected[] {
  const tables = listing.split(/^(?=table )/m).flatMap((text) => {
    const [, family = '', name = ''] = /^table (\S+) (\S+) \{/.exec(text) ?? [];
    return family === '' ? [] : [{ family, name, text }];
  });
  return tables.flatMap(({ family, text }) => reached(nftChains(text, TABLE_FAMILIES[family] ?? [])));
}

/** From `iptables-save -t nat` or `ip6tables-save -t nat`. */
export function seenByIptables(listing: string, family: Family): Redirected[] {
  const chains = new Map<string, Chain>([
    ['OUTPUT', { hook: 'output', jumps: [], redirects: [] }],
    ['PREROUTING', { hook: 'prerouting', jumps: [], redirects: [] }],
  ]);
  for (const line of listing.split('\n')) {
    const [, name, target] = /^-A (\S+).* -[jg] (\S+)/.exec(line) ?? [];
    if (name === undefined || target === undefined) continue;
    const chain = chainOf(chains, name);
    if (target === 'REDIRECT') chain.redirects.push({ port: portAfter(/--to-ports (\d+)/, line), families: [family] });
    else chain.jumps.push(target);
  }
  return reached(chains);
}

const TABLE_FAMILIES: Readonly<Record<string, readonly Family[]>> = { ip: [4], ip6: [6], inet: [4, 6] };

function nftChains(table: string, families: readonly Family[]): Map<string, Chain> {
  const chains = new Map<string, Chain>();
  let chain: Chain | undefined;
  for (const line of table.split('\n')) {
    const [, name] = /^\s*chain (\S+) \{/.exec(line) ?? [];
    if (name !== undefined) chain = chainOf(chains, name);
    if (chain === undefined) continue;
    const [, hook] = /type nat hook (output|prerouting) /.exec(line) ?? [];
    if (hook === 'output' || hook === 'prerouting') chain.hook = hook;
    const [, target] = /\b(?:jump|goto) (\S+)/.exec(line) ?? [];
    if (target !== undefined) chain.jumps.push(target);
    // An nft without the extensions of iptables shows the target of such a rule, not its port.
    if (/\bredirect to :\d+|xt target "REDIRECT"/.test(line)) {
      const port = portAfter(/\bredirect to :(\d+)/, line);
      chain.redirects.push({ port, families: families.filter((family) => isOfFamily(line, family)) });
    }
  }
  return chains;
}

/** A rule that names addresses of the other family matches none of this one. */
function isOfFamily(line: string, family: Family): boolean {
  return family === 4 ? !/\bip6 [sd]addr\b/.test(line) : !/\bip [sd]addr\b/.test(line);
}

/** Rules that no hook leads to redirect nothing. */
function reached(chains: ReadonlyMap<string, Chain>): Redirected[] {
  return [...chains.values()].flatMap((base) => {
    if (base.hook === undefined) return [];
    const { direction, port } = WANTED[base.hook];
    const redirects = reachable(base, chains).flatMap((chain) => chain.redirects);
    const ours = redirects.filter((redirect) => redirect.port === undefined || redirect.port === port);
    return ours.flatMap(({ families }) => families.map((family) => ({ direction, family })));
  });
}

function reachable(base: Chain, chains: ReadonlyMap<string, Chain>): Chain[] {
  const found = new Set([base]);
  for (const chain of found) {
    for (const name of chain.jumps) {
      const next = chains.get(name);
      if (next !== undefined) found.add(next);
    }
  }
  return [...found];
}

function chainOf(chains: Map<string, Chain>, name: string): Chain {
  const chain = chains.get(name) ?? { jumps: [], redirects: [] };
  chains.set(name, chain);
  return chain;
}

function portAfter(pattern: RegExp, line: string): number | undefined {
  const [, port] = pattern.exec(line) ?? [];
  return port === undefined ? undefined : Number(port);
}
