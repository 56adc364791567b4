/** Puts the redirection of a pod into its network namespace, compares it with what is wanted, repairs it, takes it away. */
import { MeshError } from '../base/errors.ts';
import type { Netns, Sys } from '../sys/sys.ts';
import { ensureRoutes, missingRoutes, RETURN_TABLE, removeRoutes } from './policy-routes.ts';
import {
  deletionScript,
  ourTables,
  type RedirectOptions,
  redirectScript,
  releaseScript,
  trackingScript,
} from './redirect-rules.ts';
import { staleConnections } from './stale-connections.ts';

export interface Redirection {
  /** For who lives in the namespace, before it connects to anywhere: its connections then survive `apply`. Idempotent. */
  track(netns: Netns): Promise<void>;
  /**
   * From here on new connections of the pod reach the agent's ports, or are refused when nobody listens there. One step
   * for the pod: no packet sees half of the rules. Idempotent. Throws `CV-REDIRECT`.
   */
  apply(netns: Netns, options: RedirectOptions): Promise<void>;
  /** Cheap, for looking often: while it stays the same, so does what `verify` found. */
  fingerprint(netns: Netns): string;
  /** How the pod differs from what `apply` makes, in words for a log line; empty = not at all. */
  verify(netns: Netns, options: RedirectOptions): Promise<readonly string[]>;
  /** After `apply`: ends the connections that go past the agent, and counts them. Their owners connect anew, through us. */
  closeStale(netns: Netns, options: RedirectOptions): number;
  /** New connections are the pod's own again; those made before still reach the agent. `remove` follows. Idempotent. */
  release(netns: Netns): Promise<void>;
  /** Afterwards none of our tables, rules or routes is left. Idempotent. Throws `CV-REDIRECT`. */
  remove(netns: Netns): Promise<void>;
}

export function createRedirection(sys: Sys): Redirection {
  const canonical = new CanonicalListings(sys);
  return {
    async track(netns) {
      if ((await listTables(sys, netns)) === '') await load(sys, netns, trackingScript());
    },
    async apply(netns, options) {
      // Routes first: they match nothing until the rules set marks, and the rules are the one step that switches.
      ensureRoutes(sys, netns, options.ipv6);
      await load(sys, netns, redirectScript(options));
    },
    fingerprint(netns) {
      return `${sys.fingerprint(netns, RETURN_TABLE)} ${sys.hasIpv6(netns, 'lo')}`;
    },
    async verify(netns, options) {
      const [wanted, live] = await Promise.all([canonical.of(options), listTables(sys, netns)]);
      // Or an nft that was updated meanwhile prints the same rules in other words.
      if (live !== '' && live !== wanted) canonical.forget(options);
      return [...ruleDifferences(wanted, live), ...missingRoutes(sys, netns, options.ipv6)];
    },
    closeStale(netns, options) {
      // Nothing of our own is captured where we live, so nothing of it is stale.
      const own = options.exempt === undefined ? undefined : sys.ownSocketInodes();
      const others = sys.tcpSockets(netns).filter(({ inode }) => own?.has(inode) !== true);
      const stale = staleConnections(others, options);
      return stale.filter((socket) => sys.closeTcp(netns, socket)).length;
    },
    release: (netns) => load(sys, netns, releaseScript()),
    async remove(netns) {
      await load(sys, netns, deletionScript());
      removeRoutes(sys, netns);
    },
  };
}

function ruleDifferences(wanted: string, live: string): string[] {
  if (live === wanted) return [];
  return [live === '' ? 'all nft tables are gone' : 'nft rules were changed'];
}

/** Different option sets in use at one time are few; each costs one listing. */
const MAX_LISTINGS = 256;

/**
 * How this kernel and this nft print the wanted rules. Found by loading them into an empty namespace of their own, because
 * every nft version prints the same rules a little differently.
 */
class CanonicalListings {
  readonly #sys: Sys;
  readonly #known = new Map<string, string>();

  constructor(sys: Sys) {
    this.#sys = sys;
  }

  async of(options: RedirectOptions): Promise<string> {
    const script = redirectScript(options);
    const known = this.#known.get(script);
    if (known !== undefined) return known;
    using scratch = this.#sys.scratchNetns();
    await load(this.#sys, scratch, script);
    const listing = await listTables(this.#sys, scratch);
    if (this.#known.size >= MAX_LISTINGS) this.#known.clear();
    this.#known.set(script, listing);
    return listing;
  }

  forget(options: RedirectOptions): void {
    this.#known.delete(redirectScript(options));
  }
}

/** Without counters, and without the elements of other people's sets. */
const LIST = ['nft', '-s', '-t', 'list', 'ruleset', 'inet'] as const;

async function listTables(sys: Sys, netns: Netns): Promise<string> {
  return ourTables(await nft(sys, netns, LIST));
}

async function load(sys: Sys, netns: Netns, script: string): Promise<void> {
  await nft(sys, netns, ['nft', '-f', '-'], script);
}

async function nft(sys: Sys, netns: Netns, argv: readonly string[], script = ''): Promise<string> {
  const { code, stdout, stderr } = await sys.runInNetns(netns, argv, script);
  if (code === 0) return stdout;
  const said = stderr.trim().split('\n').slice(0, 3).join(' ').slice(0, 500);
  throw new MeshError('CV-REDIRECT', `${argv.join(' ')} failed: ${said}`, { netns: netns.path, exitCode: code });
}
