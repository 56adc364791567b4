/** The SOCKS listener in the pods. */
import type { SettingsReader } from './reader.ts';

export interface SocksSettings {
  readonly isSocksEnabled: boolean;
}

export function socksSettings(read: SettingsReader): SocksSettings {
  return { isSocksEnabled: read.bool({ env: 'UNSTABLE_ENABLE_SOCKS5' }, false) };
}
