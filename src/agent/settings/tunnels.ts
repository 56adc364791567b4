/** HBONE: the pool of tunnels, their HTTP/2 windows, and what is said inside them. */
import type { SettingsReader } from './reader.ts';

export interface TunnelSettings {
  readonly poolMaxStreams: number;
  readonly poolIdleReleaseMs: number;
  readonly http2: {
    readonly streamWindowBytes: number;
    readonly connectionWindowBytes: number;
    readonly frameBytes: number;
  };
  readonly isResponseBaggageEnabled: boolean;
  readonly isLocalhostAppTunnelEnabled: boolean;
}

const MIB = 1024 * 1024;
/** RFC 9113 §6.9.1: a window is at most 2^31-1. */
const WINDOW = { min: 65_535, max: 2 ** 31 - 1 } as const;
/** RFC 9113 §6.5.2. */
const FRAME = { min: 16_384, max: 2 ** 24 - 1 } as const;

export function tunnelSettings(read: SettingsReader): TunnelSettings {
  return {
    poolMaxStreams: read.integer({ env: 'POOL_MAX_STREAMS_PER_CONNECTION' }, { fallback: 100, min: 1, max: 65_535 }),
    poolIdleReleaseMs: read.durationMs({ env: 'POOL_UNUSED_RELEASE_TIMEOUT' }, 300_000, { minMs: 100 }),
    http2: {
      streamWindowBytes: read.integer({ env: 'HTTP2_STREAM_WINDOW_SIZE' }, { fallback: 4 * MIB, ...WINDOW }),
      connectionWindowBytes: read.integer({ env: 'HTTP2_CONNECTION_WINDOW_SIZE' }, { fallback: 16 * MIB, ...WINDOW }),
      frameBytes: read.integer({ env: 'HTTP2_FRAME_SIZE' }, { fallback: MIB, ...FRAME }),
    },
    isResponseBaggageEnabled: read.bool({ env: 'ENABLE_RESPONSE_BAGGAGE' }, true),
    isLocalhostAppTunnelEnabled: read.bool({ env: 'LOCALHOST_APP_TUNNEL' }, true),
  };
}
