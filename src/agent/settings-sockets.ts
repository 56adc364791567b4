/** Options of the sockets in pods. */
import type { SettingsReader } from './settings-reader.ts';

export interface SocketSettings {
  readonly isIpv6Enabled: boolean;
  /** SO_MARK; the redirection rules know it (0x539). */
  readonly packetMark: number;
  readonly isReusePort: boolean;
  /** `undefined` = keep the client's address when the kernel lets us. */
  readonly isOrigSrcEnabled: boolean | undefined;
  readonly keepalive: { readonly idleMs: number; readonly intervalMs: number; readonly probes: number } | undefined;
  readonly isUserTimeoutEnabled: boolean;
}

/** The kernel takes whole seconds up to 32,767 (tcp(7)). */
const KEEPALIVE = { minMs: 1_000, maxMs: 32_767_000 } as const;
const AGENT_MARK = 0x539;
const MARK_MASK = 0xfff;

export function socketSettings(read: SettingsReader): SocketSettings {
  const origSrc = read.oneOf({ env: 'ENABLE_ORIG_SRC' }, ['true', 'false', 'auto'], 'auto');
  const keepalive = {
    idleMs: read.durationMs({ env: 'KEEPALIVE_TIME' }, 180_000, KEEPALIVE),
    intervalMs: read.durationMs({ env: 'KEEPALIVE_INTERVAL' }, 180_000, KEEPALIVE),
    probes: read.integer({ env: 'KEEPALIVE_RETRIES' }, { fallback: 9, min: 1, max: 127 }),
  };
  return {
    isIpv6Enabled: read.bool({ env: 'IPV6_ENABLED' }, true),
    packetMark: packetMark(read),
    isReusePort: read.bool({ env: 'INPOD_PORT_REUSE' }, true),
    isOrigSrcEnabled: origSrc === 'auto' ? undefined : origSrc === 'true',
    keepalive: read.bool({ env: 'KEEPALIVE_ENABLED' }, true) ? keepalive : undefined,
    isUserTimeoutEnabled: read.bool({ env: 'USER_TIMEOUT_ENABLED' }, false),
  };
}

function packetMark(read: SettingsReader): number {
  const source = { env: 'PACKET_MARK' };
  const mark = read.integer(source, { fallback: AGENT_MARK, min: 1, max: 0xffff_ffff });
  if ((mark & MARK_MASK) !== AGENT_MARK) {
    // The agent's own connections would be redirected to itself, without end.
    read.refuse(
      source,
      `must be ${AGENT_MARK} in its low 12 bits, which is what the rules in pods let pass, got "${mark}"`,
    );
  }
  return mark;
}
