/**
 * The policy routes of a captured pod: replies to a client address the agent borrowed are delivered to the agent's socket
 * through lo. IPv4 and IPv6 are independent: what exists for one says nothing about the other.
 */
import type { Netns, PolicyRoute, Sys } from '../sys/sys.ts';
import { MARK_MASK, RETURN_MARK } from './redirect-rules.ts';

export const RETURN_TABLE = 100;
const RETURN_PATH = { mark: Number(RETURN_MARK), mask: Number(MARK_MASK), preference: 32_764, table: RETURN_TABLE };
const V4: PolicyRoute = { family: 4, ...RETURN_PATH };
const V6: PolicyRoute = { family: 6, ...RETURN_PATH };

/** What is missing, in words; empty when all is as wanted. */
export function missingRoutes(sys: Sys, netns: Netns, ipv6: boolean): string[] {
  return wanted(sys, netns, ipv6).flatMap((route) => {
    const { hasRule, hasRoute } = sys.policyRouteState(netns, route);
    return [
      ...(hasRule ? [] : [`the IPv${route.family} rule for mark ${RETURN_MARK}`]),
      ...(hasRoute ? [] : [`the IPv${route.family} route in table ${RETURN_TABLE}`]),
    ];
  });
}

/** Idempotent. */
export function ensureRoutes(sys: Sys, netns: Netns, ipv6: boolean): void {
  for (const route of wanted(sys, netns, ipv6)) sys.addPolicyRoute(netns, route);
}

/** Removes both families, whichever were wanted: settings may have changed since. */
export function removeRoutes(sys: Sys, netns: Netns): void {
  for (const route of [V4, V6]) sys.removePolicyRoute(netns, route);
}

/** Without IPv6 on lo the kernel takes no IPv6 route there, and nothing could use it. */
function wanted(sys: Sys, netns: Netns, ipv6: boolean): PolicyRoute[] {
  return ipv6 && sys.hasIpv6(netns, 'lo') ? [V4, V6] : [V4];
}
