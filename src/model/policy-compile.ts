/** Turns a policy into predicates once, so that a decision costs set and table look-ups instead of parsing. */
import { CidrMap } from '../base/cidr-map.ts';
import { type Cidr, type HostPort, ipBytes } from '../base/ip.ts';
import { type Match, type Policy, policyKey, type Rule, type ServiceAccountMatch, type StringMatch } from './policy.ts';
import { parseSpiffeId } from './spiffe.ts';

/** What a policy can see of a connection. */
export interface PolicyConnection {
  /** TCP peer, never a header. */
  readonly source: HostPort;
  /** SPIFFE URI of the verified certificate; absent for plaintext. */
  readonly sourceIdentity?: string;
  /** Address and target port on the destination pod. */
  readonly destination: HostPort;
}

/** A connection in the form the predicates read. */
export interface PolicyFacts {
  readonly sourceIp: string;
  readonly destinationIp: string;
  readonly destinationPort: number;
  /** SPIFFE ID without `spiffe://`; empty text = no identity. */
  readonly principal: string;
  readonly namespace: string;
  /** `namespace/account`; empty text = no identity. */
  readonly serviceAccount: string;
}

type Predicate = (facts: PolicyFacts) => boolean;

export interface CompiledPolicy {
  readonly key: string;
  readonly action: Policy['action'];
  readonly dryRun: boolean;
  /** Index of the first rule that matches; `undefined` when none does. */
  readonly matchingRule: (facts: PolicyFacts) => number | undefined;
}

export function compilePolicy(policy: Policy): CompiledPolicy {
  const rules = policy.rules.map(compileRule);
  return {
    key: policyKey(policy),
    action: policy.action,
    dryRun: policy.dryRun,
    matchingRule: (facts) => {
      const index = rules.findIndex((rule) => rule(facts));
      return index < 0 ? undefined : index;
    },
  };
}

export function policyFacts({ source, sourceIdentity, destination }: PolicyConnection): PolicyFacts {
  const id = sourceIdentity === undefined ? undefined : parseSpiffeId(sourceIdentity);
  return {
    sourceIp: source.ip,
    destinationIp: destination.ip,
    destinationPort: destination.port,
    principal: id === undefined ? '' : `${id.trustDomain}/ns/${id.namespace}/sa/${id.serviceAccount}`,
    namespace: id?.namespace ?? '',
    serviceAccount: id === undefined ? '' : `${id.namespace}/${id.serviceAccount}`,
  };
}

/** Clauses ANDed: an empty rule matches everything. A clause with no match in it matches everything as well. */
function compileRule(rule: Rule): Predicate {
  const clauses = rule.map((clause) => {
    const matches = clause.map(compileMatch);
    return (facts: PolicyFacts) => matches.length === 0 || matches.some((match) => match(facts));
  });
  return (facts) => clauses.every((clause) => clause(facts));
}

/** Fields ANDed; a match with no field set matches nothing. */
function compileMatch(match: Match): Predicate {
  const predicates = [
    positive(match.namespaces, namespaceIn),
    negative(match.notNamespaces, namespaceIn),
    positive(match.principals, principalIn),
    negative(match.notPrincipals, principalIn),
    positive(match.serviceAccounts, serviceAccountIn),
    negative(match.notServiceAccounts, serviceAccountIn),
    positive(match.sourceIps, sourceIn),
    negative(match.notSourceIps, sourceIn),
    positive(match.destinationIps, destinationIn),
    negative(match.notDestinationIps, destinationIn),
    positive(match.destinationPorts, portIn),
    negative(match.notDestinationPorts, portIn),
  ].filter((predicate) => predicate !== undefined);
  return (facts) => predicates.length > 0 && predicates.every((predicate) => predicate(facts));
}

type Compile<T> = (values: readonly T[]) => Predicate;

function positive<T>(values: readonly T[] | undefined, compile: Compile<T>): Predicate | undefined {
  return values === undefined || values.length === 0 ? undefined : compile(values);
}

function negative<T>(values: readonly T[] | undefined, compile: Compile<T>): Predicate | undefined {
  const predicate = positive(values, compile);
  return predicate && ((facts) => !predicate(facts));
}

/** Without an identity the namespace is empty text and still compared (as ztunnel does). */
function namespaceIn(values: readonly StringMatch[]): Predicate {
  const matches = compileStrings(values);
  return ({ namespace }) => matches(namespace);
}

/** Without an identity nothing matches, `presence` included: `notPrincipals: [presence]` is how STRICT is expressed. */
function principalIn(values: readonly StringMatch[]): Predicate {
  const matches = compileStrings(values);
  return ({ principal }) => principal !== '' && matches(principal);
}

function serviceAccountIn(values: readonly ServiceAccountMatch[]): Predicate {
  const accounts = new Set(values.map(({ namespace, serviceAccount }) => `${namespace}/${serviceAccount}`));
  return ({ serviceAccount }) => serviceAccount !== '' && accounts.has(serviceAccount);
}

function sourceIn(values: readonly Cidr[]): Predicate {
  const isInside = compileRanges(values);
  return ({ sourceIp }) => isInside(sourceIp);
}

function destinationIn(values: readonly Cidr[]): Predicate {
  const isInside = compileRanges(values);
  return ({ destinationIp }) => isInside(destinationIp);
}

function portIn(values: readonly number[]): Predicate {
  const ports = new Set(values);
  return ({ destinationPort }) => ports.has(destinationPort);
}

/** Matches no range. Cannot come from a socket; keeps the predicates total. */
const NO_ADDRESS = new Uint8Array();

function compileRanges(values: readonly Cidr[]): (ip: string) => boolean {
  const ranges = new CidrMap(values.map((cidr) => [cidr, true] as const));
  return (ip) => ranges.has(ipBytes(ip) ?? NO_ADDRESS);
}

function compileStrings(matches: readonly StringMatch[]): (text: string) => boolean {
  const exact = new Set<string>();
  const others: ((text: string) => boolean)[] = [];
  for (const match of matches) {
    if (match.kind === 'exact') exact.add(match.value);
    else others.push(compileString(match));
  }
  return (text) => exact.has(text) || others.some((matchesText) => matchesText(text));
}

function compileString(match: StringMatch): (text: string) => boolean {
  switch (match.kind) {
    case 'exact':
      return (text) => text === match.value;
    case 'prefix':
      return (text) => text.startsWith(match.value);
    case 'suffix':
      return (text) => text.endsWith(match.value);
    case 'presence':
      return (text) => text !== '';
  }
}
