/** Options of the sockets in pods. */
import type { SettingsReader, Source } from './reader.ts';
import type { SourceSettings } from './sources.ts';

export interface SocketSettings {
  readonly isIpv6Enabled: boolean;
  /** SO_MARK; the redirection rules know it (0x539). `undefined`, where somebody else redirects: unmarked. */
  readonly packetMark: number | undefined;
  readonly isReusePort: boolean;
  /**
   * `undefined` = keep the client's address when the kernel lets us, and replies find their way back: nobody but us writes
   * the rules for that.
   */
  readonly isOrigSrcEnabled: boolean | undefined;
  readonly keepalive: { readonly idleMs: number; readonly intervalMs: number; readonly probes: number } | undefined;
  readonly isUserTimeoutEnabled: boolean;
}

/** The kernel takes whole seconds up to 32,767 (tcp(7)). */
const KEEPALIVE = { minMs: 1_000, maxMs: 32_767_000 } as const;
const MARK: Source = { env: 'PACKET_MARK' };
const MARK_RANGE = { min: 1, max: 0xffff_ffff } as const;
const AGENT_MARK = 0x539;
const MARK_MASK = 0xfff;

export function socketSettings(read: SettingsReader, { podSource }: SourceSettings): SocketSettings {
  const origSrc = read.oneOf({ env: 'ENABLE_ORIG_SRC' }, ['true', 'false', 'auto'], 'auto');
  const keepalive = {
    idleMs: read.durationMs({ env: 'KEEPALIVE_TIME' }, 180_000, KEEPALIVE),
    intervalMs: read.durationMs({ env: 'KEEPALIVE_INTERVAL' }, 180_000, KEEPALIVE),
    probes: read.integer({ env: 'KEEPALIVE_RETRIES' }, { fallback: 9, min: 1, max: 127 }),
  };
  return {
    isIpv6Enabled: read.bool({ env: 'IPV6_ENABLED' }, true),
    packetMark: isRedirectedByUs(podSource) ? packetMark(read) : anyMark(read),
    isReusePort: read.bool({ env: 'INPOD_PORT_REUSE' }, true),
    isOrigSrcEnabled: origSrc === 'auto' ? undefined : origSrc === 'true',
    keepalive: read.bool({ env: 'KEEPALIVE_ENABLED' }, true) ? keepalive : undefined,
    isUserTimeoutEnabled: read.bool({ env: 'USER_TIMEOUT_ENABLED' }, false),
  };
}

/** By our rules, or by those of a CNI agent, which know the same mark. */
function isRedirectedByUs(podSource: SourceSettings['podSource']): boolean {
  return podSource.kind !== 'own' || podSource.redirection === 'own';
}

function anyMark(read: SettingsReader): number | undefined {
  return read.isSet(MARK) ? read.integer(MARK, { fallback: AGENT_MARK, ...MARK_RANGE }) : undefined;
}

function packetMark(read: SettingsReader): number {
  const mark = read.integer(MARK, { fallback: AGENT_MARK, ...MARK_RANGE });
  if ((mark & MARK_MASK) !== AGENT_MARK) {
    // The agent's own connections would be redirected to itself, without end.
    read.refuse(
      MARK,
      `must be ${AGENT_MARK} in its low 12 bits, which is what the rules in pods let pass, got "${mark}"`,
    );
  }
  return mark;
}
