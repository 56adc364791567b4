/** Certificates and revocation lists as admin views show them. */
import type { CrlFile } from '../../identity/crl-file.ts';
import { rfc3339 } from '../../telemetry/timestamp.ts';
import type { AgentParts } from '../agent.ts';
import type { CertificatesView, IdentitiesView, RevocationView } from './views.ts';

type Parts = Pick<AgentParts, 'certificates' | 'crlFile'>;

/** For `/status`: numbers, and the first thing that is wrong. */
export function certificatesView({ certificates, crlFile }: Parts): CertificatesView {
  const all = certificates.statuses();
  const soonestMs = certificates.earliestExpiryMs();
  const lastError = all.find((status) => status.lastError !== undefined)?.lastError;
  return {
    source: certificates.source,
    total: all.length,
    unavailable: all.filter(({ state }) => state !== 'Available').length,
    ...(soonestMs !== undefined && { soonestExpiry: rfc3339(soonestMs) }),
    ...(lastError !== undefined && { lastError }),
    ...(crlFile !== undefined && { revocation: revocationView(crlFile) }),
  };
}

/** For `/certificates`: every identity. */
export function identitiesView({ certificates, crlFile }: Parts): IdentitiesView {
  return {
    source: certificates.source,
    ...(crlFile !== undefined && { revocation: revocationView(crlFile) }),
    identities: certificates.statuses(),
  };
}

function revocationView({ state: { loadedMs, ...state } }: CrlFile): RevocationView {
  return { ...state, ...(loadedMs !== undefined && { loadedAt: rfc3339(loadedMs) }) };
}
