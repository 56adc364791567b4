/** SPIFFE IDs of mesh workloads: `spiffe://<trust domain>/ns/<namespace>/sa/<service account>` and nothing else. */
import type { Workload } from './workload.ts';

export interface SpiffeId {
  readonly trustDomain: string;
  readonly namespace: string;
  readonly serviceAccount: string;
}

const SCHEME = 'spiffe://';
/** SPIFFE-ID §2.4. */
const MAX_URI_CHARS = 2_048;
/** SPIFFE-ID §2.1. */
const MAX_TRUST_DOMAIN_CHARS = 255;
/** Characters the standard allows; percent-encoding is not among them, so each ID has one spelling only. */
const SEGMENT = /^[a-zA-Z0-9._-]+$/;

/** Parses a URI SAN or a configured name. `undefined` for every other shape: an identity is never guessed. */
export function parseSpiffeId(uri: string): SpiffeId | undefined {
  if (uri.length > MAX_URI_CHARS || !uri.startsWith(SCHEME)) return undefined;
  const [trustDomain = '', ns, namespace = '', sa, serviceAccount = '', ...rest] = uri.slice(SCHEME.length).split('/');
  if (ns !== 'ns' || sa !== 'sa' || rest.length > 0) return undefined;
  if (trustDomain.length > MAX_TRUST_DOMAIN_CHARS) return undefined;
  if (![trustDomain, namespace, serviceAccount].every(isSegment)) return undefined;
  return { trustDomain, namespace, serviceAccount };
}

export function formatSpiffeId({ trustDomain, namespace, serviceAccount }: SpiffeId): string {
  return `${SCHEME}${trustDomain}/ns/${namespace}/sa/${serviceAccount}`;
}

/** True for text that can be a trust domain, namespace or service account inside an ID. */
export function isSegment(text: string): boolean {
  return SEGMENT.test(text) && text !== '.' && text !== '..';
}

/** SPIFFE URI of the record: what the workload must prove, and what our own pods ask the CA for. */
export function workloadIdentity(workload: Workload): string {
  return formatSpiffeId(workload);
}

/**
 * URIs one of which a server must prove: the chosen workload, and what its service vouches for. Names that do not parse
 * are left out: they could not match a parsed SAN anyway.
 */
export function expectedIdentities(workload: Workload, subjectAltNames: readonly string[] = []): readonly string[] {
  if (subjectAltNames.length === 0) return [workloadIdentity(workload)];
  return [...new Set([workloadIdentity(workload), ...parsableIdentities(subjectAltNames)])];
}

/** Those of `names` that are SPIFFE IDs. */
export function parsableIdentities(names: readonly string[]): readonly string[] {
  return names.filter((name) => parseSpiffeId(name) !== undefined);
}
