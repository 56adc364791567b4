/** L4 authorization policies as `istio.security.Authorization` carries them. Evaluated by `authz.ts`. */
import type { Cidr } from '../base/ip.ts';

export type StringMatch =
  | { readonly kind: 'exact' | 'prefix' | 'suffix'; readonly value: string }
  | { readonly kind: 'presence' };

export interface ServiceAccountMatch {
  readonly namespace: string;
  readonly serviceAccount: string;
}

/** Fields are ANDed, values inside a field ORed, `not…` must not match. A match with no field at all never matches. */
export interface Match {
  readonly namespaces?: readonly StringMatch[];
  readonly notNamespaces?: readonly StringMatch[];
  /** Compared with the SPIFFE ID without `spiffe://`. */
  readonly principals?: readonly StringMatch[];
  readonly notPrincipals?: readonly StringMatch[];
  readonly serviceAccounts?: readonly ServiceAccountMatch[];
  readonly notServiceAccounts?: readonly ServiceAccountMatch[];
  readonly sourceIps?: readonly Cidr[];
  readonly notSourceIps?: readonly Cidr[];
  readonly destinationIps?: readonly Cidr[];
  readonly notDestinationIps?: readonly Cidr[];
  /** Target ports, 1..65535. */
  readonly destinationPorts?: readonly number[];
  readonly notDestinationPorts?: readonly number[];
}

/** Rules are ORed, clauses of a rule ANDed, matches of a clause ORed. */
export type Rule = readonly (readonly Match[])[];

export interface Policy {
  readonly name: string;
  readonly namespace: string;
  readonly scope: 'Global' | 'Namespace' | 'WorkloadSelector';
  readonly action: 'Allow' | 'Deny';
  readonly dryRun: boolean;
  readonly rules: readonly Rule[];
}

/**
 * A policy that could not be represented. It decides nothing by itself; every workload it selects refuses
 * all connections until a good version arrives (fail closed).
 */
export interface RejectedPolicy {
  readonly name: string;
  readonly namespace: string;
  readonly scope: Policy['scope'];
  readonly why: string;
}

/** `namespace/name`. */
export function policyKey(policy: { readonly namespace: string; readonly name: string }): string {
  return `${policy.namespace}/${policy.name}`;
}
