/** Which TLS versions and groups the agent speaks, in the mesh and to the control plane. */
import type { TlsPolicy } from '../../identity/tls-policy.ts';
import type { SettingsReader } from './reader.ts';

export interface TlsSettings {
  readonly tls: TlsPolicy;
}

export function tlsSettings(read: SettingsReader): TlsSettings {
  return { tls: { isTls12Allowed: read.bool({ env: 'TLS12_ENABLED' }, false), isPostQuantumOnly: isPqc(read) } };
}

/** FIPS is a property of the crypto library, not of a setting: who asks for it must not be told yes by one that lacks it. */
function isPqc(read: SettingsReader): boolean {
  const source = { env: 'COMPLIANCE_POLICY' };
  const policy = read.optional(source);
  if (policy !== undefined && policy !== 'pqc') {
    read.refuse(source, `must be pqc or unset, got "${policy}": this build has no validated FIPS module`);
  }
  return policy === 'pqc';
}
