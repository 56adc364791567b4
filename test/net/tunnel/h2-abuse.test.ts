import assert from 'node:assert/strict';
import { once } from 'node:events';
import { duplexPair } from 'node:stream';
import { test } from 'node:test';
import fc from 'fast-check';
import { DEFAULT_LIMITS } from '../../../src/tunnel/h2-settings.ts';
import type { H2Stream } from '../../../src/tunnel/h2-stream.ts';
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
import { FakeClock } from '../../support/fake-clock.ts';
import { Peer, Reader, tlsPair } from './h2-peers.ts';
import { Attack, block, connect, EIGHT, NONE, repeat } from './raw-client.ts';

/** Each flood, in octets, and the number of repetitions that is still peace. */
const FLOODS: readonly (readonly [claim: string, limit: number, make: (count: number) => Uint8Array])[] = [
  [
    'rapid reset',
    DEFAULT_LIMITS.freshResets.burst,
    (count) => repeat(count, (i) => Buffer.concat([connect(2 * i + 1), resetFrame(2 * i + 1, H2.cancel)])),
  ],
  [
    'resets that the peer makes us send',
    DEFAULT_LIMITS.ownResets.burst,
    (count) => repeat(count, (i) => Buffer.concat([connect(2 * i + 1), windowUpdateFrame(2 * i + 1, 0)])),
  ],
  [
    'malformed requests',
    DEFAULT_LIMITS.ownResets.burst,
    (count) => repeat(count, (i) => headersFrames(2 * i + 1, block([[':method', 'CONNECT']]), false, 16_384)),
  ],
  ['PING', DEFAULT_LIMITS.pings.burst, (count) => repeat(count, () => pingFrame(EIGHT, false))],
  [
    'PING answers nobody asked for',
    DEFAULT_LIMITS.uselessFrames.burst,
    (count) => repeat(count, () => pingFrame(EIGHT, true)),
  ],
  ['SETTINGS', DEFAULT_LIMITS.settings.burst - 1, (count) => repeat(count, () => settingsFrame([[4, 65_535]]))],
  ['SETTINGS acknowledgements', DEFAULT_LIMITS.uselessFrames.burst, (count) => repeat(count, () => settingsAckFrame())],
  [
    'PRIORITY',
    DEFAULT_LIMITS.uselessFrames.burst,
    (count) => repeat(count, () => frame(FRAME.priority, 0, 7, Uint8Array.of(0, 0, 0, 1, 1))),
  ],
  [
    'wishes to suspend what is not there',
    DEFAULT_LIMITS.uselessFrames.burst,
    (count) => repeat(count, () => frame(FRAME.suspend, 0, 1, EIGHT)),
  ],
  ['unknown frames', DEFAULT_LIMITS.uselessFrames.burst, (count) => repeat(count, () => frame(0xbe, 0, 0, EIGHT))],
  [
    'GOAWAY',
    DEFAULT_LIMITS.uselessFrames.burst,
    (count) => Buffer.concat([connect(1), repeat(count, () => goawayFrame(0, 0))]),
  ],
  [
    'empty DATA',
    DEFAULT_LIMITS.emptyFrames.burst,
    (count) => Buffer.concat([connect(1), repeat(count, () => frame(FRAME.data, 0, 1, NONE))]),
  ],
  [
    'DATA of padding only',
    DEFAULT_LIMITS.emptyFrames.burst,
    (count) =>
      Buffer.concat([connect(1), repeat(count, () => frame(FRAME.data, FLAG.padded, 1, Uint8Array.of(2, 0, 0)))]),
  ],
  ['WINDOW_UPDATE', DEFAULT_LIMITS.windowUpdates.burst, (count) => repeat(count, () => windowUpdateFrame(0, 1))],
  [
    'RST_STREAM on closed streams',
    DEFAULT_LIMITS.uselessFrames.burst,
    (count) => Buffer.concat([connect(1), resetFrame(1, 8), repeat(count, () => resetFrame(1, 8))]),
  ],
];

for (const [claim, limit, make] of FLOODS) {
  test(`a flood of ${claim} ends the session, and what is under the limit does not`, async () => {
    // PING carries the end-of-test mark, and it counts.
    const isPing = claim === 'PING';
    await using peace = new Attack(
      () => undefined,
      claim === 'resets that the peer makes us send' ? { freshResets: { burst: 9999, perSecond: 0 } } : {},
    );
    peace.send(make(isPing ? limit - 1 : limit));
    await peace.settle();
    assert.equal(peace.server.session.isClosed, false);
    await using war = new Attack(() => undefined);
    war.send(make(limit + 1));
    const error = await war.server.closed;
    assert.equal(error?.code, 'CV-TUNNEL-ABUSE');
    assert.equal(await war.goawayCode(), H2.enhanceYourCalm);
  });
}

test('a rate that stays under its limit is never too much', async () => {
  const [near, far] = duplexPair();
  const clock = new FakeClock();
  const server = new Peer('server', far, { clock });
  near.resume();
  near.write(Buffer.concat([PREFACE, settingsFrame([]), settingsAckFrame()]));
  for (let second = 0; second < 9; second++) {
    near.write(repeat(5, () => pingFrame(EIGHT, false)));
    for (let turn = 0; turn < 5; turn++) await new Promise(setImmediate);
    clock.advance(1000);
  }
  assert.equal(server.session.isClosed, false);
  server.session.destroy();
  near.destroy();
});

const ENDED: readonly (readonly [claim: string, goaway: number, octets: Uint8Array])[] = [
  [
    'a CONTINUATION flood',
    H2.enhanceYourCalm,
    Buffer.concat([frame(FRAME.headers, 0, 1, NONE), repeat(20, () => frame(FRAME.continuation, 0, 1, NONE))]),
  ],
  ['a header block over the limit', H2.enhanceYourCalm, headersFrames(1, new Uint8Array(80_000), false, 16_384)],
  [
    'an HPACK bomb',
    H2.enhanceYourCalm,
    Buffer.concat([
      headersFrames(
        1,
        Buffer.concat([Buffer.from('4001617fa11e', 'hex'), Buffer.alloc(4000, 'b'), Buffer.alloc(10_000, 0xbe)]),
        false,
        16_384,
      ),
    ]),
  ],
  [
    'broken HPACK',
    H2.compressionError,
    headersFrames(1, Uint8Array.of(0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff), false, 16_384),
  ],
  ['DATA on an idle stream', H2.protocolError, frame(FRAME.data, 0, 1, EIGHT)],
  ['WINDOW_UPDATE on an idle stream', H2.protocolError, windowUpdateFrame(1, 1)],
  ['RST_STREAM on an idle stream', H2.protocolError, resetFrame(1, 0)],
  ['a stream id of a server', H2.protocolError, connect(2)],
  ['a connection window over 2^31-1', H2.flowControlError, windowUpdateFrame(0, 0x7fff_ffff)],
  [
    'an initial window that overflows an open stream',
    H2.flowControlError,
    Buffer.concat([connect(1), windowUpdateFrame(1, 0x7fff_0000), settingsFrame([[4, 0x7fff_ffff]])]),
  ],
];

for (const [claim, code, octets] of ENDED) {
  test(`${claim} ends the session with GOAWAY ${code}`, async () => {
    await using attack = new Attack(() => undefined);
    attack.send(octets);
    assert.match((await attack.server.closed)?.code ?? '', /^CV-TUNNEL-(ABUSE|HTTP2)$/);
    assert.equal(await attack.goawayCode(), code);
  });
}

const METHOD = [':method', 'CONNECT'] as const;
const AUTHORITY = [':authority', '10.0.0.1:80'] as const;
const MALFORMED: readonly (readonly [claim: string, fields: readonly (readonly [string, string])[]])[] = [
  ['a CONNECT with :path', [METHOD, AUTHORITY, [':path', '/']]],
  ['a CONNECT with :scheme', [METHOD, AUTHORITY, [':scheme', 'https']]],
  ['a CONNECT with :protocol', [METHOD, AUTHORITY, [':protocol', 'websocket']]],
  ['a CONNECT without :authority', [METHOD]],
  ['a CONNECT with an empty :authority', [METHOD, [':authority', '']]],
  ['a repeated :authority', [METHOD, AUTHORITY, AUTHORITY]],
  ['a request without :method', [AUTHORITY]],
  ['an unknown pseudo-header', [METHOD, AUTHORITY, [':odd', 'x']]],
  ['a response pseudo-header', [METHOD, AUTHORITY, [':status', '200']]],
  ['a pseudo-header after a header', [METHOD, ['baggage', ''], AUTHORITY]],
  ['an upper-case header name', [METHOD, AUTHORITY, ['Baggage', 'x']]],
  ['an empty header name', [METHOD, AUTHORITY, ['', 'x']]],
  ['a header value with a line break', [METHOD, AUTHORITY, ['baggage', 'a\r\nb']]],
  ['a header value with NUL', [METHOD, AUTHORITY, ['baggage', 'a\0']]],
  ['a connection header', [METHOD, AUTHORITY, ['connection', 'close']]],
  ['a GET without :path', [[':method', 'GET'], [':scheme', 'https'], AUTHORITY]],
];

for (const [claim, fields] of MALFORMED) {
  test(`${claim} resets that stream with PROTOCOL_ERROR, and the next request is served`, async () => {
    const served: H2Stream[] = [];
    await using attack = new Attack((stream) => void served.push(stream));
    attack.send(headersFrames(1, block(fields), false, 16_384), connect(3));
    await attack.settle();
    assert.equal(attack.resetCode(1), H2.protocolError);
    assert.deepEqual(
      served.map(({ id }) => id),
      [3],
    );
  });
}

test('more streams than announced are refused one by one', async () => {
  await using attack = new Attack(() => undefined);
  attack.send(repeat(210, (i) => connect(2 * i + 1)));
  await attack.settle();
  assert.equal(attack.server.streams.length, 200);
  assert.equal(attack.resetCode(401), H2.refusedStream);
  assert.equal(attack.resetCode(399), undefined);
});

/** All that the window of a stream allows, 4 MiB; four such streams have all of that of the connection. */
const fullWindow = (id: number): Buffer =>
  Buffer.concat([connect(id), repeat(4, () => frame(FRAME.data, 0, id, new Uint8Array(1024 * 1024)))]);

test('a stream window that is overrun by one octet ends that stream', async () => {
  await using attack = new Attack((stream) => stream.respond(200));
  attack.send(fullWindow(1), frame(FRAME.data, 0, 1, new Uint8Array(1)), fullWindow(3));
  await attack.settle();
  assert.equal(attack.resetCode(1), H2.flowControlError);
  assert.equal(attack.resetCode(3), undefined);
  assert.equal(attack.server.streams.length, 2);
});

test('a connection window that is overrun by one octet ends the session', async () => {
  await using attack = new Attack((stream) => stream.respond(200), { maxParkedBytes: 0 });
  for (const id of [1, 3, 5, 7]) attack.send(fullWindow(id));
  await attack.settle();
  attack.send(connect(9), frame(FRAME.data, 0, 9, new Uint8Array(1)));
  assert.equal(await attack.goawayCode(), H2.flowControlError);
});

test('a server that sends DATA before its answer loses that stream, and nothing of it is delivered', async () => {
  const [near, far] = duplexPair();
  near.on('error', () => undefined).resume();
  const { session } = new Peer('client', far, { clock: new FakeClock() });
  const [hasty, orderly] = [1, 2].map(() => session.request({ authority: '10.0.0.1:80' }));
  assert(hasty !== undefined && orderly !== undefined);
  const reader = new Reader(hasty);
  const answer = block([[':status', '200']]);
  near.write(
    Buffer.concat([
      settingsFrame([]),
      settingsAckFrame(),
      frame(FRAME.data, 0, 1, EIGHT),
      headersFrames(1, answer, false, 16_384),
      headersFrames(3, answer, false, 16_384),
    ]),
  );
  await assert.rejects(hasty.response, { code: 'CV-TUNNEL-HTTP2', message: /DATA before the response/ });
  assert.equal((await orderly.response).status, 200);
  assert.equal(reader.bytes, 0);
  near.destroy();
});

test('DATA after END_STREAM and DATA on a stream the peer has reset are told STREAM_CLOSED', async () => {
  await using attack = new Attack((stream) => stream.respond(200));
  attack.send(
    connect(1, true),
    frame(FRAME.data, 0, 1, EIGHT),
    connect(3),
    resetFrame(3, 8),
    frame(FRAME.data, 0, 3, EIGHT),
  );
  await attack.settle();
  assert.equal(attack.resetCode(1), H2.streamClosed);
  assert.equal(attack.resetCode(3), H2.streamClosed);
});

test('DATA that was on its way when we reset its stream is dropped without an answer, and its credit is given back', async () => {
  await using attack = new Attack((stream) => stream.reset(H2.cancel));
  const data = frame(FRAME.data, 0, 1, new Uint8Array(1024 * 1024));
  attack.send(
    connect(1),
    repeat(9, () => data),
  );
  await attack.settle();
  assert.equal(attack.frames().filter(({ type }) => type === FRAME.rstStream).length, 1);
  const credits = attack.frames().filter(({ type, streamId }) => type === FRAME.windowUpdate && streamId === 0);
  assert.equal(credits.length, 2, 'the raise at the start, and half the window taken');
});

test('octets on a paused stream cost memory by their number, not by the number of frames', {
  timeout: 60_000,
}, async () => {
  await using attack = new Attack((stream) => stream.respond(200));
  attack.send(connect(1));
  await attack.settle();
  const { gc } = globalThis;
  gc?.();
  const before = process.memoryUsage();
  for (let i = 0; i < 40; i++) {
    attack.send(repeat(5000, () => frame(FRAME.data, 0, 1, Uint8Array.of(1))));
    await new Promise(setImmediate);
  }
  await attack.settle();
  gc?.();
  const after = process.memoryUsage();
  if (gc !== undefined)
    assert.ok(after.heapUsed + after.arrayBuffers - before.heapUsed - before.arrayBuffers < 4_000_000);
  const stream = attack.server.streams[0]?.stream ?? assert.fail();
  const reader = new Reader(stream);
  await reader.until(200_000);
  assert.ok(reader.chunks.length < 200, 'small chunks were gathered');
});

test('a peer that makes us answer and does not read is left', async () => {
  const sockets = await tlsPair();
  await using _ = sockets;
  const server = new Peer('server', sockets.server, { limits: { pings: { burst: 1e9, perSecond: 0 } } });
  sockets.client.pause();
  sockets.client.write(Buffer.concat([PREFACE, settingsFrame([]), settingsAckFrame()]));
  const flood = repeat(20_000, () => pingFrame(EIGHT, false));
  let isOver = false;
  void server.closed.then(() => {
    isOver = true;
  });
  sockets.client.on('error', () => undefined);
  while (!isOver) {
    if (!sockets.client.destroyed && !sockets.client.write(flood))
      await Promise.race([once(sockets.client, 'drain'), server.closed]);
    await new Promise(setImmediate);
  }
  assert.equal((await server.closed)?.code, 'CV-TUNNEL-ABUSE');
});

test('a drain warns with 2^31-1 and a PING, serves what is on its way, and refuses what comes after the answer', async () => {
  await using attack = new Attack(() => undefined);
  attack.send(connect(1));
  await attack.settle();
  attack.server.session.goaway();
  attack.send(connect(3));
  await attack.settle();
  const warned = attack.frames();
  assert.deepEqual(warned.find(({ type }) => type === FRAME.goaway)?.payload, Buffer.from('7fffffff00000000', 'hex'));
  const ping = warned.find(({ type, flags }) => type === FRAME.ping && flags === 0);
  assert.equal(ping?.payload.toString('hex'), '0b7ba2f08b9bfe54');
  assert.equal(attack.server.streams.length, 2);
  attack.send(pingFrame(ping?.payload ?? EIGHT, true), connect(5));
  await attack.settle();
  assert.deepEqual(
    attack.frames().findLast(({ type }) => type === FRAME.goaway)?.payload,
    Buffer.from('0000000300000000', 'hex'),
  );
  assert.equal(attack.server.streams.length, 2);
  assert.equal(attack.resetCode(5), H2.refusedStream);
  for (const { stream } of attack.server.streams) stream.respond(503, {}, { endStream: true });
  assert.equal(await attack.server.closed, undefined);
});

test('the first keepalive comes after 10 s, and silence ends with GOAWAY of the last stream and NO_ERROR', async () => {
  await using attack = new Attack(() => undefined);
  attack.send(connect(1), connect(3));
  await attack.settle();
  attack.clock.advance(10_000);
  await attack.settle();
  const ping = attack.frames().find(({ type, flags }) => type === FRAME.ping && flags === 0);
  assert.equal(ping?.payload.toString('hex'), '3b7cdb7a0b8716b4');
  // The octets that `settle` sent count as an answer, once.
  attack.clock.advance(20_000 + 60_000);
  assert.equal((await attack.server.closed)?.code, 'CV-TUNNEL-DEAD');
  assert.equal(await attack.goawayCode(), H2.noError);
  assert.equal(
    attack
      .frames()
      .findLast(({ type }) => type === FRAME.goaway)
      ?.payload.readUInt32BE(0),
    3,
  );
});

const anyBytes = fc.uint8Array({ maxLength: 60 });
const anyId = fc.integer({ min: 0, max: 9 });
const anyFrame: fc.Arbitrary<Uint8Array> = fc.oneof(
  fc.tuple(anyId, fc.boolean()).map(([id, isEnd]) => connect(2 * id + 1, isEnd)),
  fc.tuple(anyId, fc.boolean(), anyBytes).map(([id, isEnd, payload]) => frame(FRAME.data, isEnd ? 1 : 0, id, payload)),
  fc.tuple(anyId, anyBytes).map(([id, payload]) => frame(FRAME.data, FLAG.padded, id, payload)),
  fc.tuple(anyId, fc.nat(14)).map(([id, code]) => resetFrame(id, code)),
  fc.tuple(anyId, fc.nat(0x7fff_ffff)).map(([id, increment]) => windowUpdateFrame(id, increment)),
  fc.tuple(fc.nat(8), fc.nat(0x7fff_ffff)).map(([id, value]) => settingsFrame([[id, value]])),
  fc.tuple(anyId, anyBytes).map(([id, payload]) => headersFrames(id, payload, false, 16_384)),
  fc.tuple(anyId, fc.nat(13)).map(([id, code]) => goawayFrame(id, code)),
  fc
    .tuple(fc.nat(255), fc.nat(255), anyId, anyBytes)
    .map(([type, flags, id, payload]) => frame(type, flags, id, payload)),
  fc.constant(headersFrames(1, block([[':status', '200']]), false, 16_384)),
  anyBytes,
);

/** What an owner may do with a stream while frames arrive. */
function meddle(stream: H2Stream, choice: number): void {
  const reader = {
    onData: () => void (choice % 5 === 0 && stream.pause()),
    onEnd: () => stream.end(),
    onDrain: () => undefined,
    onClose: () => undefined,
  };
  if (choice % 2 === 0) stream.respond(choice % 3 === 0 ? 200 : 503, {}, { endStream: choice % 3 !== 0 });
  if (choice % 7 === 0) stream.destroy();
  if (choice % 4 === 0) stream.open(reader);
  stream.write(new Uint8Array(choice * 10));
  if (choice % 11 === 0) stream.reset(choice);
}

for (const role of ['server', 'client'] as const) {
  test(`whatever a peer sends, a ${role} goes on or ends with a MeshError that is not a bug of ours`, async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(anyFrame, { maxLength: 20 }), fc.nat(100), async (frames, choice) => {
        const [near, far] = duplexPair();
        near.on('error', () => undefined).resume();
        const peer = new Peer(role, far, { clock: new FakeClock(), onStream: (stream) => meddle(stream, choice) });
        if (role === 'client')
          for (let i = 0; i < 3; i++) meddle(peer.session.request({ authority: 'a:1' }), choice + i);
        near.write(Buffer.concat([...(role === 'server' ? [PREFACE] : []), settingsFrame([])]));
        for (const octets of frames) near.write(octets);
        for (let turn = 0; turn < 4; turn++) await new Promise(setImmediate);
        if (choice % 2 === 0) peer.session.goaway();
        near.destroy();
        const error = await peer.closed;
        assert.notEqual(error?.code, 'CV-BUG', String(error?.message));
        assert.equal(peer.closes, 1);
        assert.equal(peer.session.activeStreams, 0);
      }),
      { numRuns: 400 },
    );
  });
}
