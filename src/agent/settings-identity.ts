/** Who signs the certificates of this node's pods, and whom they no longer trust. */
import type { SettingsReader } from './settings-reader.ts';

export interface IdentitySettings {
  /** File of revocation lists; watched. */
  readonly crlPath: string | undefined;
}

export function identitySettings(read: SettingsReader): IdentitySettings {
  return { crlPath: read.optional({ env: 'CRL_PATH' }) };
}
