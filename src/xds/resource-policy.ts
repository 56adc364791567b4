/** `istio.security.Authorization` as a policy. What cannot be represented rejects it: it never gets wider. */
import type { Message } from '@bufbuild/protobuf';
import type { Cidr } from '../base/ip.ts';
import type { Match, Policy, Rule, ServiceAccountMatch, StringMatch } from '../model/policy.ts';
import {
  Action,
  type Address,
  type Authorization,
  type Group,
  type Match as MatchMessage,
  Scope,
  type ServiceAccountMatch as ServiceAccountMatchMessage,
  type StringMatch as StringMatchMessage,
} from '../wire/pb/authorization_pb.ts';
import { quote } from './decode-value.ts';
import { known, list, policyPort, range, refuse, required, segment } from './resource-value.ts';

const SCOPES: Readonly<Record<number, Policy['scope']>> = {
  [Scope.GLOBAL]: 'Global',
  [Scope.NAMESPACE]: 'Namespace',
  [Scope.WORKLOAD_SELECTOR]: 'WorkloadSelector',
};
const ACTIONS: Readonly<Record<number, Policy['action']>> = { [Action.ALLOW]: 'Allow', [Action.DENY]: 'Deny' };

export function policyRecord(message: Authorization): Policy {
  return {
    ...policyHead(message),
    action: known(ACTIONS, message.action, 'action'),
    dryRun: message.dryRun,
    rules: list(message.groups, 'groups', rule),
  };
}

/** Whom a policy selects: enough to refuse for them what the rest of it could decide. */
export function policyHead(message: Authorization): Pick<Policy, 'name' | 'namespace' | 'scope'> {
  const name = required(message.name, 'name');
  // oxlint-disable-next-line no-control-regex -- control characters are among what is refused
  if (/[\s/\x00-\x1f\x7f-\x9f]/.test(name)) refuse('name', 'holds a slash, a space or a control character');
  const { namespace } = message;
  if (segment(namespace) !== namespace) refuse('namespace', `${quote(namespace)} is not a name`);
  const scope = known(SCOPES, message.scope, 'scope');
  if (scope === 'Namespace' && namespace === '') refuse('namespace', 'is empty, and the scope is one namespace');
  return { name, namespace, scope };
}

function rule(group: Group, field: string): Rule {
  understood(group, field);
  return list(group.rules, `${field}.rules`, (clause, clauseField) => {
    understood(clause, clauseField);
    return list(clause.matches, `${clauseField}.matches`, match);
  });
}

/** A field of a newer version that narrows a rule must not be passed over: the rule would be wider without it. */
function understood({ $unknown }: Message, field: string): void {
  const [first] = $unknown ?? [];
  if (first !== undefined) refuse(field, `field ${first.no} is not known here`);
}

function match(message: MatchMessage, field: string): Match {
  understood(message, field);
  if (message.extensions.length > 0) refuse(`${field}.extensions`, 'are not known here');
  const fields: { [K in keyof Match]: Match[K] | undefined } = {
    namespaces: some(message.namespaces, `${field}.namespaces`, stringMatch),
    notNamespaces: some(message.notNamespaces, `${field}.not_namespaces`, stringMatch),
    principals: some(message.principals, `${field}.principals`, stringMatch),
    notPrincipals: some(message.notPrincipals, `${field}.not_principals`, stringMatch),
    serviceAccounts: some(message.serviceAccounts, `${field}.service_accounts`, serviceAccount),
    notServiceAccounts: some(message.notServiceAccounts, `${field}.not_service_accounts`, serviceAccount),
    sourceIps: some(message.sourceIps, `${field}.source_ips`, addressRange),
    notSourceIps: some(message.notSourceIps, `${field}.not_source_ips`, addressRange),
    destinationIps: some(message.destinationIps, `${field}.destination_ips`, addressRange),
    notDestinationIps: some(message.notDestinationIps, `${field}.not_destination_ips`, addressRange),
    destinationPorts: some(message.destinationPorts, `${field}.destination_ports`, policyPort),
    notDestinationPorts: some(message.notDestinationPorts, `${field}.not_destination_ports`, policyPort),
  };
  return Object.fromEntries(Object.entries(fields).filter(([, values]) => values !== undefined));
}

/** An empty list is an absent field on the wire. */
function some<T, U>(values: readonly T[], field: string, decode: (value: T, field: string) => U) {
  return values.length === 0 ? undefined : list(values, field, decode);
}

function stringMatch(message: StringMatchMessage, field: string): StringMatch {
  understood(message, field);
  const { matchType } = message;
  switch (matchType.case) {
    case 'exact':
    case 'prefix':
    case 'suffix':
      return { kind: matchType.case, value: matchType.value };
    case 'presence':
      return { kind: 'presence' };
    case undefined:
      return refuse(field, 'says not what to compare with');
  }
}

function serviceAccount(message: ServiceAccountMatchMessage, field: string): ServiceAccountMatch {
  understood(message, field);
  return { namespace: message.namespace, serviceAccount: message.serviceAccount };
}

function addressRange(message: Address, field: string): Cidr {
  understood(message, field);
  return range(message, field);
}
