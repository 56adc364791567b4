/** Which policies select a workload: its namespace's, the global ones, and those it refers to by key. */
import type { PolicySet } from './authz.ts';
import { type Policy, policyKey, type RejectedPolicy } from './policy.ts';
import { type CompiledPolicy, compilePolicy } from './policy-compile.ts';
import type { Workload } from './workload.ts';

type Entry =
  | { readonly kind: 'policy'; readonly key: string; readonly compiled: CompiledPolicy }
  | { readonly kind: 'rejected'; readonly key: string };

/** Key of the global policies in the namespace table; no Kubernetes namespace is empty text. */
const GLOBAL = '';

/** Immutable. Policies are compiled once per snapshot; the set of a workload is built when first asked for. */
export class PolicyIndex {
  readonly #byKey = new Map<string, Entry>();
  readonly #byNamespace = new Map<string, Entry[]>();
  /** One set per workload record; goes away with the record. */
  readonly #sets = new WeakMap<Workload, PolicySet>();

  constructor(policies: Iterable<Policy>, rejected: Iterable<RejectedPolicy>) {
    for (const policy of policies) {
      this.#add(policy, { kind: 'policy', key: policyKey(policy), compiled: compilePolicy(policy) });
    }
    // A rejected policy takes the place of an accepted one with its key: the newest word on it is "not understood".
    for (const policy of rejected) this.#add(policy, { kind: 'rejected', key: policyKey(policy) });
  }

  forWorkload(workload: Workload): PolicySet {
    let set = this.#sets.get(workload);
    if (set === undefined) {
      set = this.#build(workload);
      this.#sets.set(workload, set);
    }
    return set;
  }

  #add(policy: { readonly namespace: string; readonly scope: Policy['scope'] }, entry: Entry): void {
    this.#remove(entry.key);
    this.#byKey.set(entry.key, entry);
    if (policy.scope === 'WorkloadSelector') return;
    const namespace = policy.scope === 'Global' ? GLOBAL : policy.namespace;
    const entries = this.#byNamespace.get(namespace) ?? [];
    entries.push(entry);
    this.#byNamespace.set(namespace, entries);
  }

  #remove(key: string): void {
    const old = this.#byKey.get(key);
    if (old === undefined) return;
    for (const [namespace, entries] of this.#byNamespace) {
      if (entries.includes(old))
        this.#byNamespace.set(
          namespace,
          entries.filter((entry) => entry !== old),
        );
    }
  }

  #build(workload: Workload): PolicySet {
    const entries = new Map<string, Entry>();
    const missing: string[] = [];
    for (const scope of [workload.namespace, GLOBAL]) {
      for (const entry of this.#byNamespace.get(scope) ?? []) entries.set(entry.key, entry);
    }
    for (const key of workload.authorizationPolicies) {
      const entry = this.#byKey.get(key);
      if (entry === undefined) missing.push(key);
      else entries.set(key, entry);
    }
    return policySet([...entries.values()], missing);
  }
}

function policySet(entries: readonly Entry[], missing: readonly string[]): PolicySet {
  const sorted = entries.toSorted((a, b) => (a.key < b.key ? -1 : 1));
  const compiled = sorted.flatMap((entry) => (entry.kind === 'policy' ? [entry.compiled] : []));
  const enforced = compiled.filter((policy) => !policy.dryRun);
  return {
    deny: enforced.filter((policy) => policy.action === 'Deny'),
    allow: enforced.filter((policy) => policy.action === 'Allow'),
    dryRun: compiled.filter((policy) => policy.dryRun),
    rejected: sorted.flatMap((entry) => (entry.kind === 'rejected' ? [entry.key] : [])),
    missing,
  };
}
