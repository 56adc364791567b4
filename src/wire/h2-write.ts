/** HTTP/2 frame writers (RFC 9113 §6) into a buffer that the caller has made large enough. */
import { FLAG, FRAME, FRAME_HEADER_BYTES } from './h2-protocol.ts';

export interface FrameHeader {
  readonly type: number;
  readonly flags: number;
  readonly streamId: number;
  /** Payload octets. */
  readonly length: number;
}

/** Each writer returns the offset after what it wrote. */
function writeFrameHeader(out: Uint8Array, at: number, { type, flags, streamId, length }: FrameHeader): number {
  out[at] = length >>> 16;
  out[at + 1] = length >>> 8;
  out[at + 2] = length;
  out[at + 3] = type;
  out[at + 4] = flags;
  return writeUint32(out, at + 5, streamId);
}

/** Header of a DATA frame alone: the hot path spends no object on it. */
export function writeDataHeader(out: Uint8Array, at: number, streamId: number, length: number, isEnd: boolean): number {
  out[at] = length >>> 16;
  out[at + 1] = length >>> 8;
  out[at + 2] = length;
  out[at + 3] = FRAME.data;
  out[at + 4] = isEnd ? FLAG.endStream : 0;
  return writeUint32(out, at + 5, streamId);
}

function writeUint32(out: Uint8Array, at: number, value: number): number {
  out[at] = value >>> 24;
  out[at + 1] = value >>> 16;
  out[at + 2] = value >>> 8;
  out[at + 3] = value;
  return at + 4;
}

/** A frame as octets of its own. */
export function frame(type: number, flags: number, streamId: number, payload: Uint8Array): Uint8Array {
  const out = new Uint8Array(FRAME_HEADER_BYTES + payload.length);
  out.set(payload, writeFrameHeader(out, 0, { type, flags, streamId, length: payload.length }));
  return out;
}

export function settingsFrame(settings: readonly (readonly [id: number, value: number])[]): Uint8Array {
  const payload = new Uint8Array(settings.length * 6);
  for (const [i, [id, value]] of settings.entries()) {
    payload[i * 6] = id >>> 8;
    payload[i * 6 + 1] = id;
    writeUint32(payload, i * 6 + 2, value);
  }
  return frame(FRAME.settings, 0, 0, payload);
}

export function settingsAckFrame(): Uint8Array {
  return frame(FRAME.settings, FLAG.ack, 0, new Uint8Array(0));
}

/** `payload`: 8 octets. */
export function pingFrame(payload: Uint8Array, isAck: boolean): Uint8Array {
  return frame(FRAME.ping, isAck ? FLAG.ack : 0, 0, payload);
}

export function windowUpdateFrame(streamId: number, increment: number): Uint8Array {
  return wordFrame(FRAME.windowUpdate, streamId, increment);
}

export function resetFrame(streamId: number, code: number): Uint8Array {
  return wordFrame(FRAME.rstStream, streamId, code);
}

export function goawayFrame(lastStreamId: number, code: number, debug = ''): Uint8Array {
  const payload = new Uint8Array(8 + debug.length);
  writeUint32(payload, writeUint32(payload, 0, lastStreamId), code);
  for (let i = 0; i < debug.length; i++) payload[8 + i] = debug.charCodeAt(i) & 0x7f;
  return frame(FRAME.goaway, 0, 0, payload);
}

/** HEADERS, and CONTINUATION frames as long as the block does not fit one frame. */
export function headersFrames(streamId: number, block: Uint8Array, isEnd: boolean, maxFrameBytes: number): Uint8Array {
  const frames = Math.max(1, Math.ceil(block.length / maxFrameBytes));
  const out = new Uint8Array(block.length + frames * FRAME_HEADER_BYTES);
  let at = 0;
  for (let i = 0; i < frames; i++) {
    const part = block.subarray(i * maxFrameBytes, (i + 1) * maxFrameBytes);
    const type = i === 0 ? FRAME.headers : FRAME.continuation;
    const flags = (i === 0 && isEnd ? FLAG.endStream : 0) | (i === frames - 1 ? FLAG.endHeaders : 0);
    at = writeFrameHeader(out, at, { type, flags, streamId, length: part.length });
    out.set(part, at);
    at += part.length;
  }
  return out;
}

function wordFrame(type: number, streamId: number, word: number): Uint8Array {
  const payload = new Uint8Array(4);
  writeUint32(payload, 0, word);
  return frame(type, 0, streamId, payload);
}
