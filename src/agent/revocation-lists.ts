/** Wires revocation lists: from the file through the verdict port to whoever shakes hands. */
import type { CertificateManager } from '../identity/certificate-manager.ts';
import { CrlFile } from '../identity/crl-file.ts';
import type { AgentMetrics } from '../telemetry/metrics.ts';
import type { AgentDeps } from './agent.ts';
import type { VerdictAuthority } from './verdicts/verdict-authority.ts';

export interface RevocationParts {
  readonly metrics: AgentMetrics;
  readonly certificates: CertificateManager;
  readonly authority: VerdictAuthority;
}

/** Resolves when the file was read once, or cannot be. No path: no lists, and nobody looks for any. */
export async function watchRevocationLists(
  path: string | undefined,
  { clock, logs }: AgentDeps,
  { metrics, certificates, authority }: RevocationParts,
): Promise<CrlFile | undefined> {
  if (path === undefined) return undefined;
  const file = await CrlFile.open(path, {
    clock,
    log: logs.scope('identity'),
    knownAuthorities: () => certificates.authorities(),
    onLists: (ders) => authority.crlsChanged(ders),
    onLoad: (outcome) => metrics.revocation.loaded(outcome),
  });
  certificates.subscribe(() => file.authoritiesChanged());
  return file;
}
