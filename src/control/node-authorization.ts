/** Which agent may have a certificate in the name of which pod: only for pods of its own node. */
import { formatSpiffeId, parseSpiffeId } from '../model/spiffe.ts';
import type { Caller } from './caller.ts';

/** A pod as the check needs it. */
export interface PodRecord {
  readonly uid: string;
  readonly serviceAccount: string;
  readonly node: string;
}

/** The pods of one cluster. */
export interface PodDirectory {
  pod(namespace: string, name: string): PodRecord | undefined;
  /** Some pod of this account runs on this node, is about to, or ended well: every phase but Failed. */
  hasPod(place: { readonly namespace: string; readonly serviceAccount: string; readonly node: string }): boolean;
}

export interface NodeAuthorizerOptions {
  /** `namespace/serviceAccount` of node agents (`CA_TRUSTED_NODE_ACCOUNTS`). */
  readonly trustedAccounts: ReadonlySet<string>;
  readonly trustDomain: string;
  /** By `clusterid`; `undefined` for a cluster nobody knows. */
  readonly podsOf: (clusterId: string) => PodDirectory | undefined;
}

export class NodeAuthorizer {
  readonly #options: NodeAuthorizerOptions;

  constructor(options: NodeAuthorizerOptions) {
    this.#options = options;
  }

  /**
   * Why `caller` may not have a certificate for `requested`; `undefined` when it may. For the log alone: a caller that is
   * told the reason learns what runs where.
   */
  refusal(caller: Caller, requested: string): string | undefined {
    const { trustedAccounts, trustDomain, podsOf } = this.#options;
    const account = `${caller.namespace}/${caller.serviceAccount}`;
    if (!trustedAccounts.has(account)) return `${account} is not among the trusted node accounts`;
    const wanted = parseSpiffeId(requested);
    if (wanted === undefined) return `"${requested.slice(0, 300)}" is no mesh identity`;
    // istiod does not check this: an agent there can be anybody of any other trust domain.
    if (wanted.trustDomain !== trustDomain) return `${formatSpiffeId(wanted)} is not of trust domain ${trustDomain}`;
    if (caller.pod === undefined) return 'its credential is not bound to a pod';
    const pods = podsOf(caller.clusterId);
    if (pods === undefined) return `cluster "${caller.clusterId}" is not known`;
    const own = pods.pod(caller.namespace, caller.pod.name);
    if (own === undefined) return `pod ${caller.namespace}/${caller.pod.name} is not known`;
    if (own.uid !== caller.pod.uid) return `pod ${caller.namespace}/${caller.pod.name} has another UID than the token`;
    if (own.serviceAccount !== caller.serviceAccount) return `pod ${caller.pod.name} runs as ${own.serviceAccount}`;
    const isHere = pods.hasPod({ ...wanted, node: own.node });
    return isHere ? undefined : `no pod of ${wanted.namespace}/${wanted.serviceAccount} on node ${own.node}`;
  }
}
