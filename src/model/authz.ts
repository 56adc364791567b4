/** L4 authorization: one pure function from policies and a connection to a decision with its reason. */
import type { Policy } from './policy.ts';
import { type CompiledPolicy, type PolicyConnection, type PolicyFacts, policyFacts } from './policy-compile.ts';
import type { Refusal } from './verdict.ts';

/** The policies that decide for one workload. Each list is sorted by key, so a decision never depends on arrival order. */
export interface PolicySet {
  readonly deny: readonly CompiledPolicy[];
  readonly allow: readonly CompiledPolicy[];
  readonly dryRun: readonly CompiledPolicy[];
  /** Keys of policies that select the workload but could not be understood. */
  readonly rejected: readonly string[];
  /** Keys the workload refers to and nobody sent. They decide nothing; the operator should know. */
  readonly missing: readonly string[];
}

interface PolicyMatch {
  /** `namespace/name`. */
  readonly policy: string;
  /** Position of the matching rule, from 0. */
  readonly rule: number;
}

export interface DryRunMatch extends PolicyMatch {
  readonly action: Policy['action'];
}

/** What dry-run policies would have done, for the log. */
interface DryRunOutcome {
  readonly dryRun: readonly DryRunMatch[];
  /** All ALLOW policies are dry-run and none matches: enforced, they would refuse. */
  readonly isDryRunUnmatched: boolean;
}

export type AuthzDecision = DryRunOutcome &
  (
    | { readonly isAllowed: true; readonly match?: PolicyMatch }
    | { readonly isAllowed: false; readonly code: 'CV-POLICY-DENY'; readonly match: PolicyMatch }
    | { readonly isAllowed: false; readonly code: 'CV-POLICY-INVALID'; readonly policy: string }
    | { readonly isAllowed: false; readonly code: 'CV-POLICY-NOT-ALLOWED' }
  );

/**
 * A DENY that matches refuses; then a policy nobody could read refuses (fail closed: it might have been that DENY); then
 * no ALLOW policy at all allows; then an ALLOW that matches allows; everything else is refused.
 */
export function authorize(policies: PolicySet, connection: PolicyConnection): AuthzDecision {
  const facts = policyFacts(connection);
  const tried = dryRunOutcome(policies, facts);
  const deny = firstMatch(policies.deny, facts);
  if (deny !== undefined) return { isAllowed: false, code: 'CV-POLICY-DENY', match: deny, ...tried };
  const [rejected] = policies.rejected;
  if (rejected !== undefined) return { isAllowed: false, code: 'CV-POLICY-INVALID', policy: rejected, ...tried };
  if (policies.allow.length === 0) return { isAllowed: true, ...tried };
  const allow = firstMatch(policies.allow, facts);
  if (allow === undefined) return { isAllowed: false, code: 'CV-POLICY-NOT-ALLOWED', ...tried };
  return { isAllowed: true, match: allow, ...tried };
}

/** The decision as the operator reads it; `undefined` when allowed. */
export function policyRefusal(decision: AuthzDecision): Refusal | undefined {
  if (decision.isAllowed) return undefined;
  return { code: decision.code, text: `connection closed due to policy rejection: ${rejectionText(decision)}` };
}

function rejectionText(decision: AuthzDecision & { readonly isAllowed: false }): string {
  switch (decision.code) {
    case 'CV-POLICY-DENY':
      return `explicitly denied by: ${decision.match.policy}`;
    case 'CV-POLICY-NOT-ALLOWED':
      return 'allow policies exist, but none allowed';
    case 'CV-POLICY-INVALID':
      return `policy could not be understood: ${decision.policy}`;
  }
}

function firstMatch(policies: readonly CompiledPolicy[], facts: PolicyFacts): PolicyMatch | undefined {
  for (const policy of policies) {
    const rule = policy.matchingRule(facts);
    if (rule !== undefined) return { policy: policy.key, rule };
  }
  return undefined;
}

function dryRunOutcome({ dryRun: policies, allow }: PolicySet, facts: PolicyFacts): DryRunOutcome {
  if (policies.length === 0) return NO_DRY_RUN;
  const dryRun = policies.flatMap((policy) => dryRunMatch(policy, facts));
  const hasAllow = policies.some(({ action }) => action === 'Allow');
  const isAllowed = dryRun.some(({ action }) => action === 'Allow');
  return { dryRun, isDryRunUnmatched: hasAllow && allow.length === 0 && !isAllowed };
}

const NO_DRY_RUN: DryRunOutcome = { dryRun: [], isDryRunUnmatched: false };

function dryRunMatch(policy: CompiledPolicy, facts: PolicyFacts): DryRunMatch[] {
  const rule = policy.matchingRule(facts);
  return rule === undefined ? [] : [{ policy: policy.key, rule, action: policy.action }];
}
