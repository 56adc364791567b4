/** HTTP/2 numbers (RFC 9113 §6, §7, §11) and the errors that carry them. */
import { MeshError } from '../base/errors.ts';
import type { ReasonCode } from '../base/reasons.ts';

export const FRAME = {
  data: 0,
  headers: 1,
  priority: 2,
  rstStream: 3,
  settings: 4,
  pushPromise: 5,
  ping: 6,
  goaway: 7,
  windowUpdate: 8,
  continuation: 9,
  /** Ours (RFC 9113 §5.5), to peers that announce `SETTING.suspend`: end your half of this stream with trailers, to go on elsewhere. */
  suspend: 0xfc,
} as const;

export const FLAG = { ack: 0x01, endStream: 0x01, endHeaders: 0x04, padded: 0x08, priority: 0x20 } as const;

export const SETTING = {
  headerTableSize: 1,
  enablePush: 2,
  maxConcurrentStreams: 3,
  initialWindowSize: 4,
  maxFrameSize: 5,
  maxHeaderListSize: 6,
  /** Ours, of those for experiments; 1: `FRAME.suspend` is understood. */
  suspend: 0xfc01,
} as const;

export const H2 = {
  noError: 0x0,
  protocolError: 0x1,
  internalError: 0x2,
  flowControlError: 0x3,
  settingsTimeout: 0x4,
  streamClosed: 0x5,
  frameSizeError: 0x6,
  refusedStream: 0x7,
  cancel: 0x8,
  compressionError: 0x9,
  connectError: 0xa,
  enhanceYourCalm: 0xb,
  inadequateSecurity: 0xc,
  http11Required: 0xd,
} as const;
export type H2Code = (typeof H2)[keyof typeof H2];

const CODE_NAMES = Object.entries(H2).reduce((names: string[], [name, code]) => {
  names[code] = name.replace(/[A-Z0-9]+/g, (part) => `_${part}`).toUpperCase();
  return names;
}, []);

export const FRAME_HEADER_BYTES = 9;
/** Flow-control window and SETTINGS_INITIAL_WINDOW_SIZE before any frame (RFC 9113 §6.9.2). */
export const DEFAULT_WINDOW_BYTES = 65_535;
export const DEFAULT_MAX_FRAME_BYTES = 16_384;
export const LARGEST_MAX_FRAME_BYTES = 16_777_215;
/** Largest window, stream id, and last-stream-id. */
export const MAX_31_BITS = 0x7fff_ffff;
/** First octets of a client (RFC 9113 §3.4). */
export const PREFACE = Uint8Array.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', (char) => char.charCodeAt(0));

/** The RFC's name of an error code, for messages. */
export function h2CodeName(code: number): string {
  return CODE_NAMES[code] ?? `0x${code.toString(16)}`;
}

/** A connection error. `fields.h2Code` is what GOAWAY carries. */
export function connectionError(h2Code: H2Code, message: string): MeshError {
  const code: ReasonCode = h2Code === H2.enhanceYourCalm ? 'CV-TUNNEL-ABUSE' : 'CV-TUNNEL-HTTP2';
  return new MeshError(code, `HTTP/2: ${message}`, { h2Code });
}
