/** What is logged, and how it looks. */
import { messageOf } from '../../base/errors.ts';
import { startFilter } from '../../telemetry/log-filter.ts';
import type { SettingsReader } from './reader.ts';

export interface LogSettings {
  readonly logFilter: string;
  readonly logFormat: 'text' | 'json';
  /** Policy matches at info instead of debug. */
  readonly isPolicyLogAtInfo: boolean;
}

export function logSettings(read: SettingsReader): LogSettings {
  return {
    logFilter: logFilter(read),
    logFormat: read.text({ flag: 'log-format', env: 'LOG_FORMAT' }, 'text') === 'json' ? 'json' : 'text',
    isPolicyLogAtInfo: read.text({ env: 'AUTHZ_POLICY_INFO_LOGGING' }, '') === 'true',
  };
}

function logFilter(read: SettingsReader): string {
  const source = { flag: 'log-level', env: 'RUST_LOG' };
  const text = read.text(source, 'info');
  try {
    startFilter(text);
  } catch (error) {
    read.refuse(source, `must be levels such as info or access=debug,info: ${messageOf(error)}`);
  }
  return text;
}
