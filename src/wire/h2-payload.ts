/** Payloads of HTTP/2 frames (RFC 9113 §6): fixed-width numbers, settings, and the fields in front of a header block. */
import {
  connectionError,
  DEFAULT_MAX_FRAME_BYTES,
  FLAG,
  FRAME,
  H2,
  LARGEST_MAX_FRAME_BYTES,
  MAX_31_BITS,
  SETTING,
} from './h2-protocol.ts';

export const PRIORITY_BYTES = 5;
/** RFC 9113 has six settings; a peer that sends more than this many in one frame is not talking to us. */
const MAX_SETTINGS_PER_FRAME = 64;
const SETTING_BYTES = 6;

export function byteAt(bytes: Uint8Array, at: number): number {
  return bytes[at] ?? 0;
}

export function uint32At(bytes: Uint8Array, at: number): number {
  const high = (byteAt(bytes, at) << 24) | (byteAt(bytes, at + 1) << 16);
  return (high | (byteAt(bytes, at + 2) << 8) | byteAt(bytes, at + 3)) >>> 0;
}

/** Throws on a stream id or a length that the type of frame does not allow, before a single octet of payload is kept. */
export function checkControlFrame(type: number, flags: number, streamId: number, length: number): void {
  switch (type) {
    case FRAME.headers:
    case FRAME.priority:
    case FRAME.continuation:
      return requireStream(streamId);
    case FRAME.rstStream:
      requireStream(streamId);
      return requireSize(length === 4);
    case FRAME.windowUpdate:
      return requireSize(length === 4);
    case FRAME.ping:
      requireConnection(streamId);
      return requireSize(length === 8);
    case FRAME.goaway:
      requireConnection(streamId);
      return requireSize(length >= 8);
    case FRAME.settings:
      requireConnection(streamId);
      return checkSettingsLength(flags, length);
    case FRAME.pushPromise:
      throw connectionError(H2.protocolError, 'PUSH_PROMISE is not allowed');
  }
}

export function readSettings(payload: Uint8Array): (readonly [id: number, value: number])[] {
  const settings: (readonly [number, number])[] = [];
  for (let at = 0; at + SETTING_BYTES <= payload.length; at += SETTING_BYTES) {
    const id = (byteAt(payload, at) << 8) | byteAt(payload, at + 1);
    const value = uint32At(payload, at + 2);
    checkSetting(id, value);
    settings.push([id, value]);
  }
  return settings;
}

export interface HeadersPayload {
  readonly fragment: Uint8Array;
  /** Its priority names its own stream. */
  readonly isSelfDependent: boolean;
}

/** Takes padding and priority off a HEADERS payload. */
export function readHeadersPayload(flags: number, streamId: number, payload: Uint8Array): HeadersPayload {
  let at = 0;
  let padding = 0;
  if ((flags & FLAG.padded) !== 0) {
    requireSize(payload.length > 0);
    padding = byteAt(payload, 0);
    at = 1;
  }
  let isSelfDependent = false;
  if ((flags & FLAG.priority) !== 0) {
    requireSize(payload.length >= at + PRIORITY_BYTES);
    isSelfDependent = (uint32At(payload, at) & MAX_31_BITS) === streamId;
    at += PRIORITY_BYTES;
  }
  if (padding > payload.length - at) throw connectionError(H2.protocolError, 'padding longer than its HEADERS frame');
  return { fragment: payload.subarray(at, payload.length - padding), isSelfDependent };
}

function checkSettingsLength(flags: number, length: number): void {
  requireSize(length % SETTING_BYTES === 0 && (length === 0 || (flags & FLAG.ack) === 0));
  if (length > MAX_SETTINGS_PER_FRAME * SETTING_BYTES) throw connectionError(H2.enhanceYourCalm, 'too many settings');
}

function checkSetting(id: number, value: number): void {
  if (id === SETTING.enablePush && value > 1) throw connectionError(H2.protocolError, 'ENABLE_PUSH is neither 0 nor 1');
  if (id === SETTING.initialWindowSize && value > MAX_31_BITS) {
    throw connectionError(H2.flowControlError, 'INITIAL_WINDOW_SIZE over 2^31-1');
  }
  if (id === SETTING.maxFrameSize && (value < DEFAULT_MAX_FRAME_BYTES || value > LARGEST_MAX_FRAME_BYTES)) {
    throw connectionError(H2.protocolError, 'MAX_FRAME_SIZE outside 2^14..2^24-1');
  }
}

function requireStream(streamId: number): void {
  if (streamId === 0) throw connectionError(H2.protocolError, 'a stream frame on stream 0');
}

function requireConnection(streamId: number): void {
  if (streamId !== 0) throw connectionError(H2.protocolError, 'a connection frame on a stream');
}

function requireSize(isRight: boolean): void {
  if (!isRight) throw connectionError(H2.frameSizeError, 'a frame has a length its type does not allow');
}
