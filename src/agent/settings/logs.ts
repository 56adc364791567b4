/** What is logged, and how it looks. */
import { messageOf } from '../../base/errors.ts';
import { isLogLevel, LOG_SCOPES, startFilter } from '../../telemetry/log-filter.ts';
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
    logFormat: logFormat(read),
    isPolicyLogAtInfo: read.text({ env: 'AUTHZ_POLICY_INFO_LOGGING' }, '') === 'true',
  };
}

/** The variable is ztunnel's, which takes anything but `json` for text; of the flag that would be a slip. */
function logFormat(read: SettingsReader): LogSettings['logFormat'] {
  const flag = { flag: 'log-format' };
  if (read.isSet(flag)) return read.oneOf(flag, ['text', 'json'], 'text');
  return read.text({ env: 'LOG_FORMAT' }, 'text') === 'json' ? 'json' : 'text';
}

function logFilter(read: SettingsReader): string {
  const source = { flag: 'log-level', env: 'RUST_LOG' };
  const text = read.text(source, 'info');
  try {
    startFilter(text);
  } catch (error) {
    read.refuse(source, `must be levels such as info or access=debug,info: ${messageOf(error)}`);
  }
  const slip = read.isSet({ flag: 'log-level' }) ? unknownWord(text) : undefined;
  if (slip !== undefined) read.refuse(source, `"${slip}" is no level and no part: ${LOG_SCOPES.join(', ')}`);
  return text;
}

/** Of a misspelt level `RUST_LOG` makes a target that nothing has, and the log stays empty. */
function unknownWord(filter: string): string | undefined {
  const known: readonly string[] = LOG_SCOPES;
  const words = filter.split(',').map((clause) => clause.trim());
  return words.find((word) => /^\w+$/.test(word) && !isLogLevel(word.toLowerCase()) && !known.includes(word));
}
