/** Sizes, limits and the SETTINGS frame of an HBONE session (RFC 9113 §6.5). */
import type { RateLimit } from '../base/token-bucket.ts';
import { DEFAULT_MAX_FRAME_BYTES, DEFAULT_WINDOW_BYTES, SETTING } from '../wire/h2-protocol.ts';

export type H2Role = 'client' | 'server';

/** What we announce. */
export interface H2Settings {
  readonly streamWindowBytes: number;
  readonly connectionWindowBytes: number;
  readonly maxFrameBytes: number;
  readonly maxHeaderListBytes: number;
  /** Streams the peer may have open; not sent when absent. */
  readonly maxStreams?: number;
}

/** As the reference client and server announce them. */
export const CLIENT_SETTINGS: H2Settings = {
  streamWindowBytes: 4 * 1024 * 1024,
  connectionWindowBytes: 16 * 1024 * 1024,
  maxFrameBytes: 1024 * 1024,
  maxHeaderListBytes: 16_384,
};
export const SERVER_SETTINGS: H2Settings = { ...CLIENT_SETTINGS, maxHeaderListBytes: 65_536, maxStreams: 200 };

/** Bounds that only abuse or a broken peer reaches. Passing a rate ends the session with CV-TUNNEL-ABUSE. */
export interface H2Limits {
  /** Streams opened before the peer's SETTINGS told a number. */
  readonly initialMaxStreams: number;
  /** Requests waiting for a stream slot of the peer. */
  readonly maxQueuedRequests: number;
  /** From the first octet we send to the peer's SETTINGS and its acknowledgement of ours. */
  readonly settingsTimeoutMs: number;
  /** HEADERS plus CONTINUATION frames of one header block. */
  readonly maxHeaderFrames: number;
  /** Frames made and not written: what we may owe a peer that makes us answer and does not read. */
  readonly maxPendingBytes: number;
  /** Received bytes of paused streams that do not hold back the connection window; beyond, they do. */
  readonly maxParkedBytes: number;
  /** Resets of streams we have not answered yet: opening and resetting at once (CVE-2023-44487). */
  readonly freshResets: RateLimit;
  /** Resets we send because of what the peer did (CVE-2025-8671), refused streams included. */
  readonly ownResets: RateLimit;
  readonly pings: RateLimit;
  readonly settings: RateLimit;
  /** PRIORITY, unknown types, acknowledgements nobody asked for, frames on closed streams. */
  readonly uselessFrames: RateLimit;
  /** DATA without a single octet of payload and without END_STREAM. */
  readonly emptyFrames: RateLimit;
  /** WINDOW_UPDATE beyond those that the data we sent explains. */
  readonly windowUpdates: RateLimit;
  /** TLS KeyUpdate (RFC 8446 §4.6.3): new keys are 50 µs of work for 27 octets, and OpenSSL makes them without end. */
  readonly keyUpdates: RateLimit;
  /** Well-formed requests that whoever serves them finds to be none that an honest peer makes. */
  readonly oddRequests: RateLimit;
}

export const DEFAULT_LIMITS: H2Limits = {
  initialMaxStreams: 100,
  maxQueuedRequests: 1024,
  // Whoever is there has proved who it is, and may have no CPU for 20 s.
  settingsTimeoutMs: 30_000,
  maxHeaderFrames: 16,
  maxPendingBytes: 256 * 1024,
  maxParkedBytes: 32 * 1024 * 1024,
  freshResets: { burst: 200, perSecond: 20 },
  ownResets: { burst: 400, perSecond: 20 },
  pings: { burst: 100, perSecond: 5 },
  settings: { burst: 20, perSecond: 1 },
  uselessFrames: { burst: 1000, perSecond: 100 },
  emptyFrames: { burst: 100, perSecond: 10 },
  windowUpdates: { burst: 2000, perSecond: 200 },
  keyUpdates: { burst: 64, perSecond: 1 },
  oddRequests: { burst: 100, perSecond: 10 },
};

/** What the peer announced, with the RFC's defaults before it did. */
export interface PeerSettings {
  initialWindowBytes: number;
  maxFrameBytes: number;
  /** `undefined`: not announced, which means no limit. */
  maxStreams: number | undefined;
  maxHeaderListBytes: number | undefined;
  headerTableBytes: number;
  /** It understands `FRAME.suspend`. */
  canSuspend: boolean;
}

export function defaultPeerSettings(): PeerSettings {
  return {
    initialWindowBytes: DEFAULT_WINDOW_BYTES,
    maxFrameBytes: DEFAULT_MAX_FRAME_BYTES,
    maxStreams: undefined,
    maxHeaderListBytes: undefined,
    headerTableBytes: 4096,
    canSuspend: false,
  };
}

/** Unknown settings have no effect (RFC 9113 §6.5.2). */
export function applySetting(peer: PeerSettings, id: number, value: number): void {
  if (id === SETTING.initialWindowSize) peer.initialWindowBytes = value;
  else if (id === SETTING.maxFrameSize) peer.maxFrameBytes = value;
  else if (id === SETTING.maxConcurrentStreams) peer.maxStreams = value;
  else if (id === SETTING.maxHeaderListSize) peer.maxHeaderListBytes = value;
  else if (id === SETTING.headerTableSize) peer.headerTableBytes = value;
  else if (id === SETTING.suspend) peer.canSuspend = value === 1;
}

export function settingsToSend(role: H2Role, settings: H2Settings): (readonly [number, number])[] {
  return [
    ...(role === 'client' ? [[SETTING.enablePush, 0] as const] : []),
    [SETTING.initialWindowSize, settings.streamWindowBytes],
    [SETTING.maxFrameSize, settings.maxFrameBytes],
    [SETTING.maxHeaderListSize, settings.maxHeaderListBytes],
    ...(settings.maxStreams === undefined ? [] : [[SETTING.maxConcurrentStreams, settings.maxStreams] as const]),
    [SETTING.suspend, 1],
  ];
}
