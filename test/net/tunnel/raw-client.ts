/** A client of the engine that writes octets of its choice. */
import { type Duplex, duplexPair } from 'node:stream';
import type { H2Limits } from '../../../src/tunnel/h2-settings.ts';
import type { H2Stream } from '../../../src/tunnel/h2-stream.ts';
import { FRAME, PREFACE } from '../../../src/wire/h2-protocol.ts';
import { headersFrames, pingFrame, settingsAckFrame, settingsFrame } from '../../../src/wire/h2-write.ts';
import { HpackEncoder } from '../../../src/wire/hpack-encoder.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { echo, Peer } from './h2-peers.ts';

export const NONE = new Uint8Array(0);
export const EIGHT = new Uint8Array(8);

export function block(fields: readonly (readonly [name: string, value: string])[]): Uint8Array {
  const encoder = new HpackEncoder();
  for (const [name, value] of fields) encoder.field(name, value);
  return encoder.finish();
}

const CONNECT = block([
  [':method', 'CONNECT'],
  [':authority', '10.0.0.1:80'],
]);

export function connect(streamId: number, isEnd = false): Uint8Array {
  return headersFrames(streamId, CONNECT, isEnd, 16_384);
}

interface Sent {
  readonly type: number;
  readonly flags: number;
  readonly streamId: number;
  readonly payload: Buffer;
}

/** An engine server and a client that writes octets of its choice. Time stands still, so rates are exact. */
export class Attack implements AsyncDisposable {
  readonly server: Peer;
  readonly clock = new FakeClock();
  readonly #socket: Duplex;
  #received = Buffer.alloc(0);
  #marks = 0;

  constructor(onStream: (stream: H2Stream) => void = echo, limits: Partial<H2Limits> = {}) {
    const [near, far] = duplexPair();
    this.#socket = near;
    near.on('error', () => undefined);
    near.on('data', (chunk: Buffer) => {
      this.#received = Buffer.concat([this.#received, chunk]);
    });
    this.server = new Peer('server', far, { onStream, limits, clock: this.clock });
    near.write(Buffer.concat([PREFACE, settingsFrame([]), settingsAckFrame()]));
  }

  send(...frames: readonly Uint8Array[]): void {
    this.#socket.write(Buffer.concat(frames));
  }

  /** Waits until everything sent was read: the PING comes back after it, or the session is closed. */
  async settle(): Promise<void> {
    this.#marks += 1;
    const mark = Buffer.from(`mark${String(this.#marks).padStart(4, '0')}`);
    this.send(pingFrame(mark, false));
    while (!this.server.session.isClosed && !this.#received.includes(mark)) await new Promise(setImmediate);
  }

  /** The code of the GOAWAY we were sent. */
  async goawayCode(): Promise<number | undefined> {
    await this.server.closed;
    while (!this.#socket.readableEnded) await new Promise(setImmediate);
    return this.frames()
      .findLast(({ type }) => type === FRAME.goaway)
      ?.payload.readUInt32BE(4);
  }

  frames(): Sent[] {
    const frames: Sent[] = [];
    const bytes = this.#received;
    for (let at = 0; at + 9 <= bytes.length; ) {
      const length = bytes.readUIntBE(at, 3);
      const payload = bytes.subarray(at + 9, at + 9 + length);
      frames.push({
        type: bytes[at + 3] ?? 0,
        flags: bytes[at + 4] ?? 0,
        streamId: bytes.readUInt32BE(at + 5),
        payload,
      });
      at += 9 + length;
    }
    return frames;
  }

  resetCode(streamId: number): number | undefined {
    return this.frames()
      .find((sent) => sent.type === FRAME.rstStream && sent.streamId === streamId)
      ?.payload.readUInt32BE(0);
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.server.session.destroy();
    this.#socket.destroy();
    return Promise.resolve();
  }
}

export function repeat(count: number, make: (i: number) => Uint8Array): Uint8Array {
  return Buffer.concat(Array.from({ length: count }, (_, i) => make(i)));
}
