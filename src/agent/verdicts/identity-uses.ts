/** Which identities this node needs, counted by who needs them: fetched before the first handshake, forgotten with the last need. */
import type { MeshUpdate } from '../../model/mesh-update.ts';
import { workloadIdentity } from '../../model/spiffe.ts';
import type { Workload } from '../../model/workload.ts';

export interface PrefetchedCertificates {
  prefetch(identity: string): void;
  forget(identity: string): void;
}

/** Holder → identity; `undefined` = it needs none any more. */
type Change = readonly [holder: string, identity: string | undefined];

export class IdentityUses {
  readonly #certificates: PrefetchedCertificates;
  /** Identity → number of holders. */
  readonly #uses = new Map<string, number>();

  constructor(certificates: PrefetchedCertificates) {
    this.#certificates = certificates;
  }

  /** Brings `holders` up to date. An identity that only moves from one holder to another is not fetched anew. */
  change(holders: Map<string, string>, changes: Iterable<Change>): void {
    const former: string[] = [];
    for (const [holder, identity] of changes) {
      const before = holders.get(holder);
      if (identity === before) continue;
      if (before !== undefined) former.push(before);
      if (identity === undefined) holders.delete(holder);
      else {
        holders.set(holder, identity);
        this.#use(identity);
      }
    }
    for (const identity of former) this.#release(identity);
  }

  isUsed(identity: string): boolean {
    return this.#uses.has(identity);
  }

  /** For what was fetched without a holder. */
  forgetUnused(identity: string): void {
    if (!this.isUsed(identity)) this.#certificates.forget(identity);
  }

  #use(identity: string): void {
    const uses = this.#uses.get(identity) ?? 0;
    this.#uses.set(identity, uses + 1);
    if (uses === 0) this.#certificates.prefetch(identity);
  }

  #release(identity: string): void {
    const uses = (this.#uses.get(identity) ?? 0) - 1;
    if (uses > 0) {
      this.#uses.set(identity, uses);
      return;
    }
    this.#uses.delete(identity);
    this.#certificates.forget(identity);
  }
}

/** What the workloads of this node need that speak HBONE, captured yet or not. */
export class NodeWorkloads {
  readonly #node: string;
  readonly #uses: IdentityUses;
  /** Workload UID → identity. */
  readonly #identities = new Map<string, string>();

  constructor(node: string, uses: IdentityUses) {
    this.#node = node;
    this.#uses = uses;
  }

  apply(update: MeshUpdate): void {
    this.#uses.change(this.#identities, this.#changes(update));
  }

  *#changes({ workloads, removedWorkloads }: MeshUpdate): Generator<Change, void, undefined> {
    for (const workload of workloads) {
      if (this.#isOurs(workload)) yield [workload.uid, workloadIdentity(workload)];
      else if (this.#identities.has(workload.uid)) yield [workload.uid, undefined];
    }
    for (const uid of removedWorkloads) if (this.#identities.has(uid)) yield [uid, undefined];
  }

  #isOurs({ node, protocol, nativeTunnel }: Workload): boolean {
    return node === this.#node && (protocol === 'HBONE' || nativeTunnel);
  }
}
