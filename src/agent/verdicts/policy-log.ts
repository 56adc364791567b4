/** What the log says about policies, for those who write them (target `state`). */
import { formatHostPort, type HostPort } from '../../base/ip.ts';
import type { LogFields, Logger } from '../../base/log.ts';
import type { AuthzDecision, DryRunMatch } from '../../model/authz.ts';

/** Policies that workloads refer to and nobody sent: each is told once, until so many more were. */
const MAX_TOLD = 1_000;

export interface PolicyLogOptions {
  readonly log: Logger;
  /** `AUTHZ_POLICY_INFO_LOGGING`: decisions at info instead of debug. */
  readonly isAtInfo: boolean;
}

export interface PolicyLogConnection {
  readonly source: HostPort;
  readonly destination: HostPort;
}

export class PolicyLog {
  readonly #options: PolicyLogOptions;
  readonly #told = new Set<string>();

  constructor(options: PolicyLogOptions) {
    this.#options = options;
  }

  /** True while decisions are written. */
  get isHeard(): boolean {
    const { log, isAtInfo } = this.#options;
    return (isAtInfo ? log.info : log.debug) !== undefined;
  }

  /** In the order of evaluation: what dry-run policies would have done, and what was done. */
  decided(decision: AuthzDecision, { source, destination }: PolicyLogConnection): void {
    const write = this.#options.isAtInfo ? this.#options.log.info : this.#options.log.debug;
    if (write === undefined) return;
    const ends = { src: formatHostPort(source), dst: formatHostPort(destination) };
    for (const [message, fields] of eventsOf(decision)) write(message, { ...fields, ...ends });
  }

  /** `keys`: policies that a workload refers to and nobody sent. They decide nothing, so somebody should look. */
  missing(keys: readonly string[]): void {
    for (const key of keys) {
      if (this.#told.has(key)) continue;
      if (this.#told.size >= MAX_TOLD) this.#told.clear();
      this.#told.add(key);
      this.#options.log.warn?.(`skipping unknown policy ${key}`);
    }
  }
}

type Event = readonly [message: string, fields: LogFields];

function eventsOf(decision: AuthzDecision): readonly Event[] {
  const tried = (action: DryRunMatch['action']) =>
    decision.dryRun.filter((match) => match.action === action).map(dryRunEvent);
  const outcome = outcomeOf(decision);
  // A DENY that matches ends the evaluation: nobody asked the ALLOW policies.
  if (!decision.isAllowed && decision.code === 'CV-POLICY-DENY') return [...tried('Deny'), outcome];
  const unmatched: readonly Event[] = decision.isDryRunUnmatched ? [['dry-run: no allow policies match', {}]] : [];
  return [...tried('Deny'), ...tried('Allow'), ...unmatched, outcome];
}

function dryRunEvent({ action, policy }: DryRunMatch): Event {
  return [`dry-run: ${action.toLowerCase()} policy match`, { policy }];
}

function outcomeOf(decision: AuthzDecision): Event {
  if (decision.isAllowed) {
    return decision.match === undefined
      ? ['no allow policies, allow', {}]
      : ['allow policy match', { policy: decision.match.policy }];
  }
  switch (decision.code) {
    case 'CV-POLICY-DENY':
      return ['deny policy match', { policy: decision.match.policy }];
    case 'CV-POLICY-NOT-ALLOWED':
      return ['no allow policies matched', {}];
    case 'CV-POLICY-INVALID':
      return ['policy could not be understood, refused', { policy: decision.policy }];
  }
}
