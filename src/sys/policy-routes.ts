/** Policy rules by mark, and the routes they lead to, over rtnetlink (rtnetlink(7), linux/fib_rules.h). */
import { MeshError } from '../base/errors.ts';
import {
  decodeAttributes,
  encodeAttributes,
  encodeMessage,
  NETLINK_ROUTE,
  NLM_F_ACK,
  NLM_F_CREATE,
  NLM_F_DUMP,
  NLM_F_EXCL,
  NLM_F_REPLACE,
  NLM_F_REQUEST,
  netlinkRequest,
} from './netlink.ts';
import { inNetns } from './netns.ts';
import { AF_INET, AF_INET6 } from './sockaddr.ts';
import type { Netns, PolicyRoute, PolicyRouteState } from './sys.ts';

const RTM_NEWROUTE = 24;
const RTM_DELROUTE = 25;
const RTM_GETROUTE = 26;
const RTM_NEWRULE = 32;
const RTM_DELRULE = 33;
const RTM_GETRULE = 34;

/** struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags; struct fib_rule_hdr has the same size. */
const HEADER_BYTES = 12;
const SOURCE_LENGTH_AT = 2;
const DESTINATION_LENGTH_AT = 1;
const TABLE_AT = 4;
const PROTOCOL_AT = 5;
const SCOPE_AT = 6;
/** Route type, and rule action. */
const TYPE_AT = 7;

const RTPROT_BOOT = 3;
const RT_SCOPE_HOST = 254;
const RTN_LOCAL = 2;
const FR_ACT_TO_TABLE = 1;
const RTA_OIF = 4;
const RTA_TABLE = 15;
const FRA_PRIORITY = 6;
const FRA_FWMARK = 10;
const FRA_TABLE = 15;
const FRA_FWMASK = 16;
/** lo is the first interface of every namespace. */
const LOOPBACK_INDEX = 1;

/** What a family, a rule or a route that is not there makes the kernel say. */
const ABSENT: ReadonlySet<unknown> = new Set(['ENOENT', 'ESRCH', 'EAFNOSUPPORT', 'EOPNOTSUPP', 'ENODEV']);

export function policyRouteState(netns: Netns | undefined, route: PolicyRoute): PolicyRouteState {
  return inNetns(netns, () => ({
    hasRule: dump(RTM_GETRULE, route.family).some((payload) => isRule(payload, route)),
    hasRoute: dump(RTM_GETROUTE, route.family).some((payload) => isRoute(payload, route)),
  }));
}

export function addPolicyRoute(netns: Netns | undefined, route: PolicyRoute): void {
  inNetns(netns, () => {
    change(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, routePayload(route), new Set());
    // Twice the same rule would need deleting twice.
    change(RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, rulePayload(route), new Set(['EEXIST']));
  });
}

export function removePolicyRoute(netns: Netns | undefined, route: PolicyRoute): void {
  inNetns(netns, () => {
    change(RTM_DELRULE, 0, rulePayload(route), ABSENT);
    change(RTM_DELROUTE, 0, routePayload(route), ABSENT);
  });
}

/** Payloads of all rules or routes of a family; none when the kernel has no such family. */
function dump(type: number, family: 4 | 6): readonly Uint8Array[] {
  try {
    return netlinkRequest(NETLINK_ROUTE, encodeMessage(type, NLM_F_REQUEST | NLM_F_DUMP, header(family, {})));
  } catch (error) {
    if (isOneOf(error, ABSENT)) return [];
    throw error;
  }
}

/** Everything of a family that routes by table `table`: all rules, and its routes. */
export function routingPayloads(family: 4 | 6, table: number): Uint8Array[] {
  const routes = dump(RTM_GETROUTE, family).filter((payload) => payload[TABLE_AT] === table);
  return [...dump(RTM_GETRULE, family), ...routes];
}

function change(type: number, flags: number, payload: Uint8Array, harmless: ReadonlySet<unknown>): void {
  try {
    netlinkRequest(NETLINK_ROUTE, encodeMessage(type, NLM_F_REQUEST | NLM_F_ACK | flags, payload));
  } catch (error) {
    if (!isOneOf(error, harmless)) throw error;
  }
}

function isOneOf(error: unknown, errnos: ReadonlySet<unknown>): boolean {
  return error instanceof MeshError && errnos.has(error.fields['errno']);
}

function isRule(payload: Uint8Array, { mark, mask, preference, table }: PolicyRoute): boolean {
  const found = decodeAttributes(payload.subarray(HEADER_BYTES));
  return (
    payload[TYPE_AT] === FR_ACT_TO_TABLE &&
    payload[SOURCE_LENGTH_AT] === 0 &&
    payload[DESTINATION_LENGTH_AT] === 0 &&
    found.get(FRA_FWMARK) === mark &&
    found.get(FRA_FWMASK) === mask &&
    found.get(FRA_PRIORITY) === preference &&
    found.get(FRA_TABLE) === table
  );
}

function isRoute(payload: Uint8Array, { table }: PolicyRoute): boolean {
  const found = decodeAttributes(payload.subarray(HEADER_BYTES));
  return (
    payload[TYPE_AT] === RTN_LOCAL &&
    payload[DESTINATION_LENGTH_AT] === 0 &&
    found.get(RTA_TABLE) === table &&
    found.get(RTA_OIF) === LOOPBACK_INDEX
  );
}

function rulePayload({ family, mark, mask, preference, table }: PolicyRoute): Uint8Array {
  return joined(
    header(family, { table, type: FR_ACT_TO_TABLE }),
    encodeAttributes([
      [FRA_PRIORITY, preference],
      [FRA_FWMARK, mark],
      [FRA_FWMASK, mask],
      [FRA_TABLE, table],
    ]),
  );
}

function routePayload({ family, table }: PolicyRoute): Uint8Array {
  return joined(
    header(family, { table, type: RTN_LOCAL, protocol: RTPROT_BOOT, scope: RT_SCOPE_HOST }),
    encodeAttributes([
      [RTA_OIF, LOOPBACK_INDEX],
      [RTA_TABLE, table],
    ]),
  );
}

interface HeaderFields {
  readonly table?: number;
  readonly protocol?: number;
  readonly scope?: number;
  readonly type?: number;
}

function header(family: 4 | 6, { table = 0, protocol = 0, scope = 0, type = 0 }: HeaderFields): Uint8Array {
  const out = new Uint8Array(HEADER_BYTES);
  out[0] = family === 4 ? AF_INET : AF_INET6;
  out[TABLE_AT] = table;
  out[PROTOCOL_AT] = protocol;
  out[SCOPE_AT] = scope;
  out[TYPE_AT] = type;
  return out;
}

function joined(a: Uint8Array, b: Uint8Array): Uint8Array {
  const out = new Uint8Array(a.length + b.length);
  out.set(a);
  out.set(b, a.length);
  return out;
}
