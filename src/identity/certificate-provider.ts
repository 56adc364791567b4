/** Where certificates come from: the embedded CA, Istio's CA service, files, or the SPIFFE Workload API. */

export interface IssuedCertificate {
  /** Leaf first, then intermediates; no root. One PEM text each. */
  readonly chainPem: readonly string[];
  /** Every root to trust. One PEM text each, at least one. */
  readonly rootsPem: readonly string[];
  /** Key of the leaf (PKCS#8 PEM), from providers that make it themselves; absent: the key that signed the request. */
  readonly keyPem?: string;
}

/**
 * `renewed`: `issue` has something new for these identities. `withdrawn`: they are taken back, and what was issued is to be
 * used no more.
 */
export type RenewalListener = (identities: readonly string[], change: 'renewed' | 'withdrawn') => void;

export interface CertificateProvider {
  /** Which one it is, for operators: `Istio CA https://istiod.istio-system.svc:15012`. */
  readonly title: string;
  /**
   * One trust bundle holds for every identity: a root that came with any certificate is trusted by all at once, and leaves
   * with the renewal of each. Absent: each identity trusts what came with its own.
   */
  readonly hasSharedBundle?: boolean;
  /** Rejects with a `MeshError` that names the place and the cure. Stops when `signal` aborts; a late answer is ignored. */
  issue(identity: string, csrPem: string, ttlMs: number, signal: AbortSignal): Promise<IssuedCertificate>;
  /** Calls back with all roots each time they change without a new certificate. Absent: they never do. */
  subscribeRoots?(listener: (rootsPem: readonly string[]) => void): Disposable;
  /**
   * Calls back when certificates changed. Whoever has this renews by itself: it is asked again only after it called back,
   * or when a certificate has expired.
   */
  subscribeRenewals?(listener: RenewalListener): Disposable;
}
