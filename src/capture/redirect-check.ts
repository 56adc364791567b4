/** Looks whether a pod is redirected to us when others write its rules. Changes nothing. */
import { MeshError, messageOf } from '../base/errors.ts';
import type { Netns, Sys } from '../sys/sys.ts';
import type { Gap } from './pod-rules.ts';
import { missingRoutes, RETURN_TABLE } from './policy-routes.ts';
import { type Family, type Redirected, seenByIptables, seenByNft } from './redirect-seen.ts';

export interface Look {
  /** What goes past us; empty: nothing. */
  readonly gaps: readonly Gap[];
  /** Why that cannot be told. */
  readonly unknown?: string;
  /** A change would show in the fingerprint. */
  readonly isWatched: boolean;
}

export interface RedirectionCheck {
  /** Cheap, for looking often: while it stays the same, so does what `look` found, if that said so. */
  fingerprint(netns: Netns): string;
  /** Never rejects. */
  look(netns: Netns): Promise<Look>;
}

export function createRedirectionCheck(sys: Sys): RedirectionCheck {
  return {
    fingerprint: (netns) => sys.fingerprint(netns, RETURN_TABLE),
    async look(netns) {
      try {
        return await look(sys, netns);
      } catch (error) {
        return { gaps: [], unknown: messageOf(error), isWatched: false };
      }
    },
  };
}

async function look(sys: Sys, netns: Netns): Promise<Look> {
  const seen = [...(await seenBy(sys, netns, 'inet'))];
  let families = familiesOf(sys, netns, seen);
  // One family at a time: nft 1.0.6 leaves out the target of an ip6tables rule when it has listed one of iptables before.
  if (gapsIn(seen, families).length > 0) {
    seen.push(...(await seenBy(sys, netns, 'ip')), ...(await seenBy(sys, netns, 'ip6')));
    families = familiesOf(sys, netns, seen);
  }
  const gaps = gapsIn(seen, families);
  if (gaps.length === 0) return { gaps: routeGaps(sys, netns, families), isWatched: true };
  const legacy = legacyTables(sys, netns);
  if (legacy.length === 0) return { gaps, isWatched: true };
  const all = await Promise.all(legacy.map((family) => seenByLegacy(sys, netns, family)));
  return {
    gaps: [...gapsIn([...seen, ...all.flat()], families), ...routeGaps(sys, netns, families)],
    isWatched: false,
  };
}

/** Rules that nftables holds for `family`, without counters and elements of sets. */
async function seenBy(sys: Sys, netns: Netns, family: 'inet' | 'ip' | 'ip6'): Promise<readonly Redirected[]> {
  return seenByNft(await run(sys, netns, ['nft', '-s', '-t', 'list', 'ruleset', family]));
}

/** IPv6 counts when the pod has an address that others can reach. */
function familiesOf(sys: Sys, netns: Netns, seen: readonly Redirected[]): readonly Family[] {
  if (seen.some(({ family }) => family === 6)) return [4, 6];
  const addresses = sys.procNet(netns, 'if_inet6');
  // Address, index, prefix length, scope, flags, name; scope 00 is global.
  return /^\S+ \S+ \S+ 00 \S+ +(?!lo$)\S+$/m.test(addresses) ? [4, 6] : [4];
}

function gapsIn(seen: readonly Redirected[], families: readonly Family[]): Gap[] {
  return (['outbound', 'inbound'] as const).flatMap((direction) =>
    families
      .filter((family) => !seen.some((one) => one.direction === direction && one.family === family))
      .map((family) => ({ direction, text: `IPv${family} ${TEXT[direction]}` })),
  );
}

const TEXT = {
  outbound: 'connections that the pod makes',
  // What an annotation of the pod asked for is not told to us.
  inbound: 'connections to the pod in plaintext (as wanted only with bypass-inbound-capture)',
} as const;

function routeGaps(sys: Sys, netns: Netns, families: readonly Family[]): Gap[] {
  return missingRoutes(sys, netns, families.includes(6)).map((text) => ({ direction: 'return', text }));
}

/** Families for which the pod has a NAT table of legacy iptables, which nft does not list. */
function legacyTables(sys: Sys, netns: Netns): Family[] {
  const names = [
    { family: 4, file: 'ip_tables_names' },
    { family: 6, file: 'ip6_tables_names' },
  ] as const;
  const used = names.filter(({ file }) => sys.procNet(netns, file).split('\n').includes('nat'));
  return used.map(({ family }) => family);
}

async function seenByLegacy(sys: Sys, netns: Netns, family: Family): Promise<Redirected[]> {
  const tool = family === 4 ? 'iptables-legacy-save' : 'ip6tables-legacy-save';
  return seenByIptables(await run(sys, netns, [tool, '-t', 'nat']), family);
}

async function run(sys: Sys, netns: Netns, argv: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await sys.runInNetns(netns, argv);
  if (code === 0) return stdout;
  throw new MeshError('CV-SYS', `${argv.join(' ')} failed: ${stderr.trim().slice(0, 500)}`, { exitCode: code });
}
