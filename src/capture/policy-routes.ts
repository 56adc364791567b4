/**
 * The policy routes of a captured pod (datapath §2.5): replies to a client address the agent borrowed are delivered to the
 * agent's socket through lo. IPv4 and IPv6 are independent: what exists for one says nothing about the other.
 */
import { MeshError } from '../base/errors.ts';
import type { Netns, Sys } from '../sys/sys.ts';

export type RouteFamily = '-4' | '-6';

const ROUTE_FAMILIES = ['-4', '-6'] as const;
const PREFERENCE = '32764';
export const RETURN_TABLE = 100;
const TABLE = String(RETURN_TABLE);
const RULE = ['fwmark', '0x111/0xfff', 'pref', PREFERENCE, 'lookup', TABLE] as const;
const EVERYTHING = { '-4': '0.0.0.0/0', '-6': '::/0' } as const satisfies Record<RouteFamily, string>;

interface RouteState {
  readonly hasRule: boolean;
  readonly hasRoute: boolean;
}

/** What is missing, in words; empty when all is as wanted. */
export async function missingRoutes(sys: Sys, netns: Netns, ipv6: boolean): Promise<string[]> {
  const states = await Promise.all(wantedFamilies(sys, netns, ipv6).map((family) => stateOf(sys, netns, family)));
  return states.flatMap(({ family, hasRule, hasRoute }) => [
    ...(hasRule ? [] : [`ip ${family} rule for mark 0x111`]),
    ...(hasRoute ? [] : [`ip ${family} route in table ${TABLE}`]),
  ]);
}

/** Adds what is missing and nothing else. */
export async function ensureRoutes(sys: Sys, netns: Netns, ipv6: boolean): Promise<void> {
  for (const family of wantedFamilies(sys, netns, ipv6)) {
    await ip(sys, netns, [family, 'route', 'replace', 'local', EVERYTHING[family], 'dev', 'lo', 'table', TABLE]);
    const { hasRule } = await stateOf(sys, netns, family);
    // Another agent may add it between the look and the add; then it is there, which is all we want.
    if (!hasRule) await ip(sys, netns, [family, 'rule', 'add', ...RULE], /File exists/);
  }
}

/** Removes both families, whichever were wanted: settings may have changed since. */
export async function removeRoutes(sys: Sys, netns: Netns): Promise<void> {
  for (const family of ROUTE_FAMILIES) {
    const { hasRule, hasRoute } = await stateOf(sys, netns, family);
    if (hasRule) await ip(sys, netns, [family, 'rule', 'del', ...RULE], GONE);
    if (hasRoute)
      await ip(sys, netns, [family, 'route', 'del', 'local', EVERYTHING[family], 'dev', 'lo', 'table', TABLE], GONE);
  }
}

const GONE = /No such (file|process)/;

/** Without IPv6 on lo the kernel takes no IPv6 route there, and nothing could use it. */
function wantedFamilies(sys: Sys, netns: Netns, ipv6: boolean): RouteFamily[] {
  return ipv6 && sys.hasIpv6(netns, 'lo') ? ['-4', '-6'] : ['-4'];
}

async function stateOf(sys: Sys, netns: Netns, family: RouteFamily): Promise<RouteState & { family: RouteFamily }> {
  const [rules, routes] = await Promise.all([
    sys.runInNetns(netns, ['ip', '-j', family, 'rule', 'show', 'pref', PREFERENCE]),
    sys.runInNetns(netns, ['ip', '-j', family, 'route', 'show', 'type', 'local', 'table', TABLE]),
  ]);
  // A failing listing means "none": the table may not exist, or the kernel has no such family.
  return {
    family,
    hasRule: rules.code === 0 && jsonList(rules.stdout).some(isOurRule),
    hasRoute: routes.code === 0 && jsonList(routes.stdout).some(isOurRoute),
  };
}

function isOurRule(rule: Readonly<Record<string, unknown>>): boolean {
  return rule['fwmark'] === '0x111' && rule['fwmask'] === '0xfff' && rule['table'] === TABLE && rule['src'] === 'all';
}

function isOurRoute(route: Readonly<Record<string, unknown>>): boolean {
  return route['dst'] === 'default' && route['dev'] === 'lo';
}

function jsonList(text: string): readonly Readonly<Record<string, unknown>>[] {
  if (text.trim() === '') return [];
  const value: unknown = JSON.parse(text);
  return Array.isArray(value) ? (value as Readonly<Record<string, unknown>>[]) : [];
}

async function ip(sys: Sys, netns: Netns, args: readonly string[], harmless?: RegExp): Promise<void> {
  const { code, stderr } = await sys.runInNetns(netns, ['ip', ...args]);
  if (code === 0 || harmless?.test(stderr) === true) return;
  const said = stderr.trim().slice(0, 500);
  throw new MeshError('CV-REDIRECT', `ip ${args.join(' ')} failed: ${said}`, { netns: netns.path, exitCode: code });
}
