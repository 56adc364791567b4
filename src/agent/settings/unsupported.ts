/** Variables of ztunnel and of its chart that mean nothing here, and those that ask for what this agent does not do. */
import type { SettingsReader } from './reader.ts';

export interface UnsupportedSettings {
  /** Variables that are set and change nothing; said once in the log. */
  readonly ignored: readonly string[];
}

/** Name → why it changes nothing. README.md has this table. */
export const IGNORED: Readonly<Record<string, string>> = {
  INPOD_ENABLED: 'set by the chart of ztunnel, which does not read it either',
  RUST_BACKTRACE: 'there is no Rust here; a defect is always logged with its stack',
  SSLKEYLOGFILE: 'session keys never leave the process, in ztunnel as here',
};

interface Refusal {
  /** What it may be set to all the same. */
  readonly allowed: string;
  readonly why: string;
}

/** Name → what is refused and why. README.md has this table. */
export const REFUSED: Readonly<Record<string, Refusal>> = {
  ENABLE_PROXY: {
    allowed: 'true',
    why: 'an agent without its proxy would leave captured pods without a way out; remove the DaemonSet instead',
  },
  FAKE_CA: {
    allowed: 'false',
    why: 'certificates that nobody else trusts exist in test builds of ztunnel only; use --ca-dir for a mesh without a CA',
  },
};

export function unsupportedSettings(read: SettingsReader): UnsupportedSettings {
  for (const [env, { allowed, why }] of Object.entries(REFUSED)) {
    const value = read.text({ env }, allowed);
    if (value !== allowed) read.refuse({ env }, `must be ${allowed} or unset, got "${value}": ${why}`);
  }
  return { ignored: Object.keys(IGNORED).filter((env) => read.isSet({ env })) };
}
