/** Which policies select a workload: its namespace's, the global ones, and those it refers to by key. */
import type { PolicySet } from './authz.ts';
import { type Policy, policyKey, type RejectedPolicy } from './policy.ts';
import { type CompiledPolicy, compilePolicy } from './policy-compile.ts';
import type { Workload } from './workload.ts';

/** Compiled when the first workload it selects is asked about: most policies of a mesh select nobody on this node. */
type Entry =
  | { readonly kind: 'policy'; readonly key: string; readonly policy: Policy; compiled?: CompiledPolicy }
  | { readonly kind: 'rejected'; readonly key: string; readonly policy: RejectedPolicy };

/** Key of the global policies in the namespace table; no Kubernetes namespace is empty text. */
const GLOBAL = '';

/** The set of a workload is built when first asked for after a change of any policy. */
export class PolicyIndex {
  readonly #byKey = new Map<string, Entry>();
  readonly #byNamespace = new Map<string, Map<string, Entry>>();
  /** One set per workload record; goes away with the record. */
  #sets = new WeakMap<Workload, PolicySet>();

  accepted(): readonly Policy[] {
    return [...this.#byKey.values()].flatMap((entry) => (entry.kind === 'policy' ? [entry.policy] : []));
  }

  rejected(): readonly RejectedPolicy[] {
    return [...this.#byKey.values()].flatMap((entry) => (entry.kind === 'rejected' ? [entry.policy] : []));
  }

  set(policy: Policy): void {
    this.#put({ kind: 'policy', key: policyKey(policy), policy });
  }

  /** Takes the place of an accepted policy with its key: the newest word on it is "not understood". */
  reject(policy: RejectedPolicy): void {
    this.#put({ kind: 'rejected', key: policyKey(policy), policy });
  }

  delete(key: string): void {
    const old = this.#byKey.get(key);
    if (old === undefined) return;
    this.#sets = new WeakMap();
    this.#byKey.delete(key);
    const namespace = namespaceOf(old);
    if (namespace === undefined) return;
    const entries = this.#byNamespace.get(namespace);
    entries?.delete(key);
    if (entries?.size === 0) this.#byNamespace.delete(namespace);
  }

  forWorkload(workload: Workload): PolicySet {
    let set = this.#sets.get(workload);
    if (set === undefined) {
      set = this.#build(workload);
      this.#sets.set(workload, set);
    }
    return set;
  }

  #put(entry: Entry): void {
    this.delete(entry.key);
    this.#sets = new WeakMap();
    this.#byKey.set(entry.key, entry);
    const namespace = namespaceOf(entry);
    if (namespace === undefined) return;
    const entries = this.#byNamespace.get(namespace) ?? new Map<string, Entry>();
    entries.set(entry.key, entry);
    this.#byNamespace.set(namespace, entries);
  }

  #build(workload: Workload): PolicySet {
    const entries = new Map<string, Entry>();
    const missing: string[] = [];
    for (const scope of [workload.namespace, GLOBAL]) {
      for (const [key, entry] of this.#byNamespace.get(scope) ?? []) entries.set(key, entry);
    }
    for (const key of workload.authorizationPolicies) {
      const entry = this.#byKey.get(key);
      if (entry === undefined) missing.push(key);
      else entries.set(key, entry);
    }
    return policySet([...entries.values()], missing);
  }
}

/** The namespace all of whose workloads a policy selects; `undefined` when workloads name it themselves. */
function namespaceOf({ policy }: Entry): string | undefined {
  if (policy.scope === 'WorkloadSelector') return undefined;
  return policy.scope === 'Global' ? GLOBAL : policy.namespace;
}

function policySet(entries: readonly Entry[], missing: readonly string[]): PolicySet {
  const sorted = entries.toSorted((a, b) => (a.key < b.key ? -1 : 1));
  const compiled = sorted.flatMap((entry) =>
    entry.kind === 'policy' ? [(entry.compiled ??= compilePolicy(entry.policy))] : [],
  );
  const enforced = compiled.filter((policy) => !policy.dryRun);
  return {
    deny: enforced.filter((policy) => policy.action === 'Deny'),
    allow: enforced.filter((policy) => policy.action === 'Allow'),
    dryRun: compiled.filter((policy) => policy.dryRun),
    rejected: sorted.flatMap((entry) => (entry.kind === 'rejected' ? [entry.key] : [])),
    missing,
  };
}
