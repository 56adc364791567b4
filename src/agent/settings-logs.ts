/** What is logged, and how it looks. */
import type { SettingsReader } from './settings-reader.ts';

export interface LogSettings {
  readonly logFilter: string;
  readonly logFormat: 'text' | 'json';
  /** Policy matches at info instead of debug. */
  readonly isPolicyLogAtInfo: boolean;
}

export function logSettings(read: SettingsReader): LogSettings {
  return {
    logFilter: read.text({ flag: 'log-level', env: 'RUST_LOG' }, 'info'),
    logFormat: read.text({ flag: 'log-format', env: 'LOG_FORMAT' }, 'text') === 'json' ? 'json' : 'text',
    isPolicyLogAtInfo: read.text({ env: 'AUTHZ_POLICY_INFO_LOGGING' }, '') === 'true',
  };
}
