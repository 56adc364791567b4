import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { MeshError } from '../../../src/base/errors.ts';
import { H2FrameParser, type H2FrameSink } from '../../../src/wire/h2-frame.ts';
import { FLAG, FRAME, H2, PREFACE } from '../../../src/wire/h2-protocol.ts';
import {
  frame,
  goawayFrame,
  headersFrames,
  pingFrame,
  resetFrame,
  settingsAckFrame,
  settingsFrame,
  windowUpdateFrame,
} from '../../../src/wire/h2-write.ts';

/** Writes down what a parser finds; pieces of one DATA frame are joined. */
class Recorder implements H2FrameSink {
  readonly seen: string[] = [];
  #payload = '';
  #head = '';
  onDataStart(streamId: number, flowBytes: number): void {
    this.#head = `data ${streamId} ${flowBytes}`;
    this.#payload = '';
  }
  onDataChunk(chunk: Uint8Array): void {
    assert.notEqual(chunk.length, 0);
    this.#payload += Buffer.from(chunk).toString('hex');
  }
  onDataEnd(paddingBytes: number, isEndStream: boolean): void {
    this.seen.push(`${this.#head} ${this.#payload} ${paddingBytes} ${isEndStream}`);
  }
  onHeaders(streamId: number, block: Uint8Array, isEnd: boolean, isSelfDependent: boolean): void {
    this.seen.push(`headers ${streamId} ${Buffer.from(block).toString('hex')} ${isEnd} ${isSelfDependent}`);
  }
  onReset(streamId: number, code: number): void {
    this.seen.push(`reset ${streamId} ${code}`);
  }
  onSettings(settings: readonly (readonly [number, number])[]): void {
    this.seen.push(`settings ${JSON.stringify(settings)}`);
  }
  onSettingsAck(): void {
    this.seen.push('settings ack');
  }
  onPing(payload: Uint8Array, isAck: boolean): void {
    this.seen.push(`ping ${Buffer.from(payload).toString('hex')} ${isAck}`);
  }
  onGoaway(lastStreamId: number, code: number): void {
    this.seen.push(`goaway ${lastStreamId} ${code}`);
  }
  onWindowUpdate(streamId: number, increment: number): void {
    this.seen.push(`window ${streamId} ${increment}`);
  }
  onSuspend(streamId: number): void {
    this.seen.push(`suspend ${streamId}`);
  }
  onIgnored(): void {
    this.seen.push('ignored');
  }
  onStreamError(streamId: number, code: number): void {
    this.seen.push(`stream error ${streamId} ${code}`);
  }
}

const OPTIONS = { isServer: false, maxFrameBytes: 16_384, maxHeaderBlockBytes: 4096, maxHeaderFrames: 8 };
const SETTINGS = settingsFrame([]);

function parse(chunks: Iterable<Uint8Array>, options = OPTIONS): string[] {
  const recorder = new Recorder();
  const parser = new H2FrameParser(recorder, options);
  for (const chunk of chunks) parser.push(chunk);
  return recorder.seen;
}

/** `bytes` in pieces of the given lengths, then the rest. */
function cut(bytes: Uint8Array, lengths: readonly number[]): Uint8Array[] {
  const pieces: Uint8Array[] = [];
  let at = 0;
  for (const length of lengths) {
    pieces.push(bytes.subarray(at, at + length));
    at += length;
  }
  return [...pieces, bytes.subarray(at)];
}

function faultOf(...frames: Uint8Array[]): number | string {
  try {
    parse([SETTINGS, ...frames]);
  } catch (caught) {
    if (caught instanceof MeshError) return Number(caught.fields['h2Code']);
    throw caught;
  }
  return 'none';
}

const bytes = (maxLength: number) => fc.uint8Array({ minLength: 0, maxLength });
const streamId = fc.integer({ min: 1, max: 0x7fff_ffff });
const word = fc.integer({ min: 0, max: 0xffff_ffff });

function padded(type: number, flags: number, id: number, payload: Uint8Array, padding: number): Uint8Array {
  return frame(type, flags | FLAG.padded, id, Uint8Array.from([padding, ...payload, ...new Uint8Array(padding)]));
}

const anyFrame: fc.Arbitrary<Uint8Array> = fc.oneof(
  fc.tuple(streamId, bytes(300), fc.boolean()).map(([id, payload, end]) => frame(FRAME.data, end ? 1 : 0, id, payload)),
  fc.tuple(streamId, bytes(60), fc.nat(255)).map(([id, payload, pad]) => padded(FRAME.data, 0, id, payload, pad)),
  fc.tuple(streamId, bytes(500), fc.boolean()).map(([id, block, end]) => headersFrames(id, block, end, 100)),
  fc.tuple(streamId, bytes(50), fc.nat(60)).map(([id, block, pad]) => padded(FRAME.headers, 4, id, block, pad)),
  fc.tuple(streamId, word).map(([id, code]) => resetFrame(id, code)),
  fc.constant(settingsFrame([[4, 65_535]])),
  fc.constant(settingsAckFrame()),
  fc
    .tuple(fc.uint8Array({ minLength: 8, maxLength: 8 }), fc.boolean())
    .map(([payload, ack]) => pingFrame(payload, ack)),
  fc.tuple(streamId, word, fc.string({ maxLength: 300 })).map(([id, code, debug]) => goawayFrame(id, code, debug)),
  fc
    .tuple(fc.nat(5), fc.integer({ min: 0, max: 0x7fff_ffff }))
    .filter(([id, n]) => id + n > 0 && n > 0)
    .map(([id, n]) => windowUpdateFrame(id, n)),
  fc.tuple(streamId, bytes(5)).map(([id, payload]) => frame(FRAME.suspend, 0, id, payload)),
  fc.tuple(fc.integer({ min: 10, max: 255 }), bytes(50)).map(([type, payload]) => frame(type, 0, 0, payload)),
);

/** As `parse` of one chunk, given again from where the parser stopped, as often as `stops` says. */
function parseInTurns(chunk: Uint8Array, stops: readonly boolean[]): string[] {
  const recorder = new Recorder();
  const parser = new H2FrameParser(recorder, OPTIONS);
  let asked = 0;
  for (let at = 0; at < chunk.length; ) at += parser.push(chunk.subarray(at), () => stops[asked++] ?? false);
  return recorder.seen;
}

test('frames read the same however often the parser is told to stop between them', () => {
  fc.assert(
    fc.property(fc.array(anyFrame, { maxLength: 12 }), fc.array(fc.boolean(), { maxLength: 30 }), (frames, stops) => {
      const stream = Buffer.concat([SETTINGS, ...frames]);
      assert.deepEqual(parseInTurns(stream, stops), parse([stream]));
    }),
  );
});

test('a parser that is told to stop after each frame takes one at a time, but for much DATA', () => {
  const parser = new H2FrameParser(new Recorder(), OPTIONS);
  const small = frame(FRAME.data, 0, 1, new Uint8Array(1));
  const frames = [
    SETTINGS,
    pingFrame(new Uint8Array(8), false),
    small,
    small,
    resetFrame(1, 8),
    Buffer.concat([frame(FRAME.data, 0, 3, new Uint8Array(1_024)), small]),
    pingFrame(new Uint8Array(8), true),
  ];
  let chunk: Uint8Array = Buffer.concat(frames);
  const taken: number[] = [];
  for (; chunk.length > 0; chunk = chunk.subarray(taken.at(-1))) taken.push(parser.push(chunk, () => true));
  assert.deepEqual(
    taken,
    frames.map(({ length }) => length),
  );
});

test('frames read the same whatever the cuts', () => {
  fc.assert(
    fc.property(fc.array(anyFrame, { maxLength: 12 }), fc.array(fc.nat(40), { maxLength: 60 }), (frames, cuts) => {
      const stream = Buffer.concat([SETTINGS, ...frames]);
      const whole = parse([stream]);
      assert.deepEqual(parse(cut(stream, cuts)), whole);
      assert.deepEqual(
        parse(
          cut(
            stream,
            Array.from(stream, () => 1),
          ),
        ),
        whole,
      );
      assert.ok(whole.length > frames.length - 1);
    }),
  );
});

test('any octets after SETTINGS give calls or a MeshError with an HTTP/2 code', () => {
  fc.assert(
    fc.property(fc.array(fc.oneof(anyFrame, bytes(40)), { maxLength: 10 }), (chunks) => {
      try {
        parse([SETTINGS, ...chunks]);
      } catch (caught) {
        assert.ok(caught instanceof MeshError);
        assert.equal(typeof caught.fields['h2Code'], 'number');
      }
    }),
    { numRuns: 500 },
  );
});

test('DATA payload is handed on as views of what arrived, before the frame is complete', () => {
  const chunks: Uint8Array[] = [];
  const recorder = new Recorder();
  recorder.onDataChunk = (chunk) => void chunks.push(chunk);
  const parser = new H2FrameParser(recorder, OPTIONS);
  parser.push(SETTINGS);
  const data = frame(FRAME.data, 0, 1, new Uint8Array(1000).fill(7));
  const first = data.slice(0, 500);
  parser.push(first);
  assert.equal(chunks[0]?.buffer, first.buffer);
  assert.equal(chunks[0]?.length, 491);
  assert.equal(recorder.seen.length, 1, 'only SETTINGS is complete');
});

test('a header block may come in one frame or in many', () => {
  const block = Uint8Array.from({ length: 300 }, (_, i) => i);
  const one = parse([SETTINGS, headersFrames(1, block, true, 16_384)]);
  assert.deepEqual(parse([SETTINGS, headersFrames(1, block, true, 50)]), one);
});

test('a parser that was stopped by its sink reads no further', () => {
  const recorder = new Recorder();
  const parser = new H2FrameParser(recorder, OPTIONS);
  recorder.onReset = () => parser.stop();
  parser.push(Buffer.concat([SETTINGS, resetFrame(1, 0), windowUpdateFrame(0, 5)]));
  assert.deepEqual(recorder.seen, ['settings []']);
});

test('a server insists on the preface', () => {
  const options = { ...OPTIONS, isServer: true };
  assert.deepEqual(parse(cut(Buffer.concat([PREFACE, SETTINGS]), [1, 5, 10]), options), ['settings []']);
  assert.throws(() => parse([Buffer.from('GET / HTTP/1.1\r\n')], options), { fields: { h2Code: H2.protocolError } });
});

const eight = new Uint8Array(8);
const REFUSED: readonly (readonly [claim: string, code: number, frame: Uint8Array])[] = [
  ['a frame over the announced size', H2.frameSizeError, frame(FRAME.data, 0, 1, new Uint8Array(16_385))],
  ['DATA on stream 0', H2.protocolError, frame(FRAME.data, 0, 0, eight)],
  ['HEADERS on stream 0', H2.protocolError, frame(FRAME.headers, 4, 0, eight)],
  ['RST_STREAM on stream 0', H2.protocolError, resetFrame(0, 0)],
  ['PRIORITY on stream 0', H2.protocolError, frame(FRAME.priority, 0, 0, new Uint8Array(5))],
  ['SETTINGS on a stream', H2.protocolError, frame(FRAME.settings, 0, 1, new Uint8Array(0))],
  ['PING on a stream', H2.protocolError, frame(FRAME.ping, 0, 1, eight)],
  ['GOAWAY on a stream', H2.protocolError, frame(FRAME.goaway, 0, 1, eight)],
  ['PUSH_PROMISE', H2.protocolError, frame(FRAME.pushPromise, 4, 1, eight)],
  ['a PING that is not 8 octets', H2.frameSizeError, frame(FRAME.ping, 0, 0, new Uint8Array(7))],
  ['a RST_STREAM that is not 4 octets', H2.frameSizeError, frame(FRAME.rstStream, 0, 1, eight)],
  ['a WINDOW_UPDATE that is not 4 octets', H2.frameSizeError, frame(FRAME.windowUpdate, 0, 1, eight)],
  ['SETTINGS that are no multiple of 6 octets', H2.frameSizeError, frame(FRAME.settings, 0, 0, eight)],
  ['a SETTINGS acknowledgement with a payload', H2.frameSizeError, frame(FRAME.settings, 1, 0, new Uint8Array(6))],
  ['a GOAWAY shorter than 8 octets', H2.frameSizeError, frame(FRAME.goaway, 0, 0, new Uint8Array(7))],
  ['padded DATA without a pad length', H2.frameSizeError, frame(FRAME.data, FLAG.padded, 1, new Uint8Array(0))],
  [
    'DATA whose padding fills more than the frame',
    H2.protocolError,
    frame(FRAME.data, FLAG.padded, 1, Uint8Array.of(3, 0, 0)),
  ],
  [
    'HEADERS whose padding fills more than the frame',
    H2.protocolError,
    frame(FRAME.headers, 12, 1, Uint8Array.of(3, 0, 0)),
  ],
  ['HEADERS cut inside their priority', H2.frameSizeError, frame(FRAME.headers, 0x24, 1, new Uint8Array(4))],
  ['CONTINUATION without HEADERS', H2.protocolError, frame(FRAME.continuation, 4, 1, eight)],
  [
    'a header block interrupted by another frame',
    H2.protocolError,
    Buffer.concat([frame(FRAME.headers, 0, 1, eight), pingFrame(eight, false)]),
  ],
  [
    'a header block continued on another stream',
    H2.protocolError,
    Buffer.concat([frame(FRAME.headers, 0, 1, eight), frame(FRAME.continuation, 4, 3, eight)]),
  ],
  ['a WINDOW_UPDATE of 0 on the connection', H2.protocolError, windowUpdateFrame(0, 0)],
  ['ENABLE_PUSH of 2', H2.protocolError, settingsFrame([[2, 2]])],
  ['INITIAL_WINDOW_SIZE of 2^31', H2.flowControlError, settingsFrame([[4, 0x8000_0000]])],
  ['MAX_FRAME_SIZE of 16383', H2.protocolError, settingsFrame([[5, 16_383]])],
  ['MAX_FRAME_SIZE of 2^24', H2.protocolError, settingsFrame([[5, 16_777_216]])],
  [
    'a flood of CONTINUATION frames',
    H2.enhanceYourCalm,
    Buffer.concat([
      frame(FRAME.headers, 0, 1, eight),
      ...Array.from({ length: 20 }, () => frame(FRAME.continuation, 0, 1, new Uint8Array(0))),
    ]),
  ],
  ['a header block over its limit', H2.enhanceYourCalm, frame(FRAME.headers, 4, 1, new Uint8Array(4097))],
  [
    'a SETTINGS frame of thousands of settings',
    H2.enhanceYourCalm,
    frame(FRAME.settings, 0, 0, new Uint8Array(6 * 1000)),
  ],
];

for (const [claim, code, bad] of REFUSED) {
  test(`${claim} is a connection error`, () => {
    assert.equal(faultOf(bad), code);
    assert.equal(faultOf(...cut(bad, [3, 4, 2, 1])), code, 'also in pieces');
  });
}

test('a first frame that is not SETTINGS is a connection error', () => {
  assert.throws(() => parse([pingFrame(eight, false)]), { fields: { h2Code: H2.protocolError } });
  assert.throws(() => parse([settingsAckFrame()]), { fields: { h2Code: H2.protocolError } });
});

const STREAM_ERRORS: readonly (readonly [claim: string, seen: string, frame: Uint8Array])[] = [
  ['a WINDOW_UPDATE of 0 on a stream', `stream error 1 ${H2.protocolError}`, windowUpdateFrame(1, 0)],
  [
    'a PRIORITY that is not 5 octets',
    `stream error 1 ${H2.frameSizeError}`,
    frame(FRAME.priority, 0, 1, new Uint8Array(4)),
  ],
  [
    'a PRIORITY on the stream itself',
    `stream error 1 ${H2.protocolError}`,
    frame(FRAME.priority, 0, 1, Uint8Array.of(0, 0, 0, 1, 0)),
  ],
];

for (const [claim, seen, bad] of STREAM_ERRORS) {
  test(`${claim} breaks that stream only`, () => {
    assert.deepEqual(parse([SETTINGS, bad, resetFrame(1, 8)]), ['settings []', seen, 'reset 1 8']);
  });
}
