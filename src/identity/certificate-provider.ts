/** Where certificates come from: the embedded CA now; Istio's CA service, files or the SPIFFE Workload API behind the same interface. */

export interface IssuedCertificate {
  /** Leaf first, then intermediates; no root. One PEM text each. */
  readonly chainPem: readonly string[];
  /** Every root to trust. One PEM text each, at least one. */
  readonly rootsPem: readonly string[];
  /** Key of the leaf (PKCS#8 PEM), from providers that make it themselves; absent: the key that signed the request. */
  readonly keyPem?: string;
}

export interface CertificateProvider {
  /** Rejects with `CV-CA`. Stops when `signal` aborts; a late answer is ignored. */
  issue(identity: string, csrPem: string, ttlMs: number, signal: AbortSignal): Promise<IssuedCertificate>;
  /** Calls back with all roots each time they change without a new certificate. Absent: they never do. */
  subscribeRoots?(listener: (rootsPem: readonly string[]) => void): Disposable;
}
