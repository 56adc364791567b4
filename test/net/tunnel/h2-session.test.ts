import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { test } from 'node:test';
import { MeshError } from '../../../src/base/errors.ts';
import type { H2Stream } from '../../../src/tunnel/h2-stream.ts';
import { H2 } from '../../../src/wire/h2-protocol.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { until } from '../../support/until.ts';
import { echo, enginePair, Peer, Reader, tlsPair } from './h2-peers.ts';

const AUTHORITY = '10.0.0.1:8080';

async function connected(pair: Awaited<ReturnType<typeof enginePair>>): Promise<{ near: H2Stream; far: H2Stream }> {
  const near = pair.client.session.request({ authority: AUTHORITY });
  assert.equal((await near.response).status, 200);
  const far = pair.server.streams.at(-1)?.stream;
  assert.ok(far);
  return { near, far };
}

const accept = { onStream: (stream: H2Stream) => stream.respond(200) };

test('a request carries its authority and headers, the answer its status and headers', async () => {
  const seen: Record<string, readonly string[]>[] = [];
  await using pair = await enginePair({
    onStream: (stream, request) => {
      assert.deepEqual([request.method, request.authority], ['CONNECT', AUTHORITY]);
      assert.equal(request.path ?? request.scheme, undefined);
      seen.push(Object.fromEntries(request.headers));
      stream.respond(200, { baggage: 'k8s.namespace.name=b' });
    },
  });
  const stream = pair.client.session.request({
    authority: AUTHORITY,
    headers: { baggage: ['a=1', 'b=2'], forwarded: 'for="[::1]:80"' },
  });
  const response = await stream.response;
  assert.equal(response.status, 200);
  assert.deepEqual(response.headers.get('baggage'), ['k8s.namespace.name=b']);
  assert.deepEqual(seen, [{ baggage: ['a=1', 'b=2'], forwarded: ['for="[::1]:80"'] }]);
});

test('the answer still arrives after the client half has ended', async () => {
  await using pair = await enginePair(accept);
  const { near, far } = await connected(pair);
  const answer = new Reader(near);
  const question = new Reader(far);
  near.write(Buffer.from('question'));
  near.end();
  await question.ended;
  assert.equal(question.text(), 'question');
  assert.equal(question.closes, 0);
  far.write(Buffer.from('answer'));
  far.end();
  assert.equal(await answer.closed, undefined);
  assert.equal(answer.text(), 'answer');
  assert.equal(await question.closed, undefined);
  assert.equal(pair.client.session.activeStreams + pair.server.session.activeStreams, 0);
});

test('the request still flows after the server half has ended', async () => {
  await using pair = await enginePair(accept);
  const { near, far } = await connected(pair);
  const answer = new Reader(near);
  const question = new Reader(far);
  far.end();
  await answer.ended;
  assert.equal(answer.closes, 0);
  near.write(Buffer.from('still here'));
  near.end();
  assert.equal(await question.closed, undefined);
  assert.equal(question.text(), 'still here');
  assert.equal(await answer.closed, undefined);
});

test('16 MiB each way on each of 8 streams arrive as they were sent', { timeout: 60_000 }, async () => {
  await using pair = await enginePair({ onStream: echo });
  const block = randomBytes(64 * 1024);
  await Promise.all(
    Array.from({ length: 8 }, async (_, i) => {
      const stream = pair.client.session.request({ authority: AUTHORITY });
      const sent = createHash('sha256');
      const received = createHash('sha256');
      const reader = new Reader(stream, { keep: false });
      const collect = reader.onData.bind(reader);
      reader.onData = (chunk) => {
        received.update(chunk);
        collect(chunk);
      };
      for (let n = 0; n < 256; n++) {
        const chunk = block.subarray(0, 65_536 - ((n * 37 + i) % 500));
        sent.update(chunk);
        if (!stream.write(chunk)) await reader.drained();
      }
      stream.end();
      assert.equal(await reader.closed, undefined);
      assert.equal(received.digest('hex'), sent.digest('hex'));
    }),
  );
});

test('writes of one octet arrive in order, however many', async () => {
  await using pair = await enginePair({ onStream: echo });
  const stream = pair.client.session.request({ authority: AUTHORITY });
  const reader = new Reader(stream);
  const text = Array.from({ length: 5000 }, (_, i) => String.fromCharCode(97 + (i % 26))).join('');
  for (const char of text) stream.write(Buffer.from(char));
  stream.end();
  await reader.closed;
  assert.equal(reader.text(), text);
});

test('a paused stream is bounded by its window and holds up no other stream', async () => {
  await using pair = await enginePair(accept);
  const { near: slow, far: slowFar } = await connected(pair);
  const { near: fast, far: fastFar } = await connected(pair);
  const slowReader = new Reader(slowFar, { keep: false });
  slowFar.pause();
  const writer = new Reader(slow);
  const chunk = Buffer.alloc(64 * 1024);
  let accepted = 0;
  for (let turn = 0; turn < 300; turn++) {
    for (let isTaken = slow.bufferedBytes === 0; isTaken; accepted += chunk.length) isTaken = slow.write(chunk);
    await new Promise(setImmediate);
  }
  const fastReader = new Reader(fastFar, { keep: false });
  const fastWriter = new Reader(fast);
  for (let i = 0; i < 512; i++) if (!fast.write(chunk)) await fastWriter.drained();
  await fastReader.until(512 * chunk.length);
  assert.ok(accepted <= 4 * 1024 * 1024 + 512 * 1024, `${accepted} accepted on the paused stream`);
  assert.equal(slowReader.bytes, 0);
  slowFar.resume();
  slow.end();
  await slowReader.ended;
  assert.ok(slowReader.bytes > 4 * 1024 * 1024 - 1);
  assert.equal(writer.closes, 0);
});

test('six paused streams with full windows do not starve a seventh', async () => {
  await using pair = await enginePair(accept);
  const chunk = Buffer.alloc(64 * 1024);
  for (let i = 0; i < 6; i++) {
    const { near } = await connected(pair);
    for (let n = 0; n < 70; n++) near.write(chunk);
  }
  const { near, far } = await connected(pair);
  const reader = new Reader(far, { keep: false });
  const writer = new Reader(near);
  for (let i = 0; i < 320; i++) if (!near.write(chunk)) await writer.drained();
  await reader.until(320 * chunk.length);
});

for (const code of [H2.cancel, H2.noError] as const) {
  test(`a reset with code ${code} reads as an orderly end, and what we write then ends the stream without an error`, async () => {
    await using pair = await enginePair(accept);
    const { near, far } = await connected(pair);
    const reader = new Reader(near);
    far.write(Buffer.from('last words'));
    far.reset(code);
    await reader.ended;
    assert.equal(reader.text(), 'last words');
    assert.equal(reader.closes, 0);
    near.write(Buffer.from('into a broken pipe'));
    assert.equal(await reader.closed, undefined);
  });
}

for (const code of [H2.cancel, H2.noError] as const) {
  for (const meanwhile of ['end', 'write'] as const) {
    test(`what came before a reset with code ${code} is delivered to a slow reader, also when we ${meanwhile} meanwhile`, async () => {
      await using pair = await enginePair(accept);
      const { near, far } = await connected(pair);
      const reader = new Reader(near);
      near.pause();
      far.write(Buffer.from('first '));
      far.write(Buffer.from('and last words'));
      far.reset(code);
      await until('the reset has come', () => pair.client.session.activeStreams === 0);
      if (meanwhile === 'end') near.end();
      else near.write(Buffer.from('into a broken pipe'));
      assert.equal(reader.closes, 0);
      near.resume();
      assert.equal(await reader.closed, undefined);
      assert.equal(reader.ends, 1);
      assert.equal(reader.text(), 'first and last words');
    });
  }
}

test('a reset with STREAM_CLOSED or CONNECT_ERROR ends the stream without an end and without an error', async () => {
  await using pair = await enginePair(accept);
  for (const code of [H2.streamClosed, H2.connectError]) {
    const { near, far } = await connected(pair);
    const reader = new Reader(near);
    far.reset(code);
    assert.equal(await reader.closed, undefined);
    assert.equal(reader.ends, 0);
  }
});

test('a reset with any other code is an error', async () => {
  await using pair = await enginePair(accept);
  const { near, far } = await connected(pair);
  const reader = new Reader(near);
  far.reset(H2.internalError);
  const error = await reader.closed;
  assert.equal(error?.code, 'CV-TUNNEL-CLOSED');
  assert.match(error?.message ?? '', /INTERNAL_ERROR/);
});

for (const code of ['CV-IO', 'CV-POLICY-CHANGED', 'CV-DRAIN', 'CV-IDLE'] as const) {
  test(`a stream cut for ${code} never reads as an orderly end at the other side`, async () => {
    await using pair = await enginePair(accept);
    const { near, far } = await connected(pair);
    const cut = new Reader(near);
    far.write(Buffer.from('half an answer'));
    far.destroy(new MeshError(code, 'cut'));
    assert.equal(await cut.closed, undefined);
    assert.equal(cut.ends, 0);
  });
}

test('destroying a stream without an error resets with CANCEL, which reads as an end', async () => {
  await using pair = await enginePair(accept);
  const { near, far } = await connected(pair);
  const given = new Reader(near);
  far.destroy();
  await given.ended;
});

test('an answer of 401 ends the stream and rejects nothing', async () => {
  await using pair = await enginePair({ onStream: (stream) => stream.respond(401, {}, { endStream: true }) });
  const stream = pair.client.session.request({ authority: AUTHORITY });
  assert.equal((await stream.response).status, 401);
  const reader = new Reader(stream);
  await reader.ended;
  stream.destroy();
  assert.equal(await reader.closed, undefined);
  assert.equal(pair.client.session.activeStreams, 0);
});

test('a request that is reset before its answer rejects with the code of the peer', async () => {
  await using pair = await enginePair({ onStream: (stream) => stream.reset(H2.refusedStream) });
  const stream = pair.client.session.request({ authority: AUTHORITY });
  await assert.rejects(stream.response, {
    code: 'CV-CONNECT-FAILED',
    fields: { h2Code: H2.refusedStream, isUnprocessed: true },
  });
});

test('a server is told when the client gives up before the answer', async () => {
  const gaveUp = Promise.withResolvers<void>();
  await using pair = await enginePair({
    onStream: (stream) => {
      stream.onAborted = () => gaveUp.resolve();
    },
  });
  const stream = pair.client.session.request({ authority: AUTHORITY });
  stream.destroy();
  await gaveUp.promise;
  assert.equal(pair.server.session.activeStreams, 0);
});

test('requests beyond the streams of the peer wait for a slot, and those beyond the queue are refused', async () => {
  await using pair = await enginePair({ ...accept, settings: { maxStreams: 1 } }, { limits: { maxQueuedRequests: 2 } });
  const first = await connected(pair);
  const second = pair.client.session.request({ authority: 'second:1' });
  const third = pair.client.session.request({ authority: 'third:1' });
  assert.throws(() => pair.client.session.request({ authority: 'fourth:1' }), { code: 'CV-LIMIT' });
  assert.equal(pair.client.session.activeStreams, 3);
  third.destroy();
  assert.equal(pair.client.session.activeStreams, 2);
  first.near.destroy();
  assert.equal((await second.response).status, 200);
  assert.deepEqual(
    pair.server.streams.map(({ authority }) => authority),
    [AUTHORITY, 'second:1'],
  );
});

test('a peer that allows no streams keeps requests waiting and can be left', async () => {
  await using pair = await enginePair({ ...accept, settings: { maxStreams: 0 } }, { limits: { initialMaxStreams: 0 } });
  const stream = pair.client.session.request({ authority: AUTHORITY });
  while (pair.client.session.peerSettings.maxStreams === undefined) await new Promise(setImmediate);
  assert.equal(pair.client.session.peerMaxStreams, 0);
  assert.equal(stream.id, 0);
  stream.destroy();
  await assert.rejects(stream.response, { code: 'CV-TUNNEL-CLOSED' });
  assert.equal(pair.client.session.activeStreams, 0);
});

test('a stream over the limit is refused, the others go on', async () => {
  await using pair = await enginePair(
    { onStream: echo, settings: { maxStreams: 2 } },
    { limits: { initialMaxStreams: 10 } },
  );
  const streams = Array.from({ length: 4 }, () => pair.client.session.request({ authority: AUTHORITY }));
  const results = await Promise.allSettled(streams.map((stream) => stream.response));
  assert.deepEqual(
    results.map(({ status }) => status),
    ['fulfilled', 'fulfilled', 'rejected', 'rejected'],
  );
  const reader = new Reader(streams[1] ?? assert.fail());
  streams[1]?.end();
  assert.equal(await reader.closed, undefined);
});

test('a drain lets streams finish, serves those on their way, then closes both ends in order', async () => {
  await using pair = await enginePair({ onStream: echo });
  const open = pair.client.session.request({ authority: AUTHORITY });
  await open.response;
  const onItsWay = pair.client.session.request({ authority: AUTHORITY });
  pair.server.session.goaway();
  assert.equal(pair.server.session.isUsable, false);
  assert.equal((await onItsWay.response).status, 200);
  while (pair.client.goaways < 2) await new Promise(setImmediate);
  assert.equal(pair.client.session.isUsable, false);
  assert.throws(() => pair.client.session.request({ authority: AUTHORITY }), { code: 'CV-TUNNEL-CLOSED' });
  const readers = [new Reader(open), new Reader(onItsWay)];
  open.write(Buffer.from('late'));
  open.end();
  onItsWay.end();
  for (const reader of readers) assert.equal(await reader.closed, undefined);
  assert.equal(readers[0]?.text(), 'late');
  assert.equal(await pair.server.closed, undefined);
  assert.equal(await pair.client.closed, undefined);
  assert.deepEqual([pair.server.closes, pair.client.closes], [1, 1]);
});

test('a client that drains finishes its streams and closes', async () => {
  await using pair = await enginePair({ onStream: echo });
  const stream = pair.client.session.request({ authority: AUTHORITY });
  await stream.response;
  pair.client.session.goaway();
  const reader = new Reader(stream);
  stream.end();
  await reader.closed;
  assert.equal(await pair.client.closed, undefined);
  assert.equal(await pair.server.closed, undefined);
});

test('destroying a session ends every stream with its error, and those of the peer', async () => {
  await using pair = await enginePair(accept);
  const { near, far } = await connected(pair);
  const here = new Reader(near);
  const there = new Reader(far);
  const unanswered = pair.client.session.request({ authority: AUTHORITY });
  pair.client.session.destroy(new MeshError('CV-DRAIN', 'stop'));
  assert.equal((await here.closed)?.code, 'CV-DRAIN');
  await assert.rejects(unanswered.response, { code: 'CV-DRAIN' });
  assert.equal((await there.closed)?.code, 'CV-TUNNEL-CLOSED');
  await pair.server.closed;
});

test('a socket that breaks ends every stream', async () => {
  const sockets = await tlsPair();
  await using _ = sockets;
  const server = new Peer('server', sockets.server, accept);
  const client = new Peer('client', sockets.client);
  const stream = client.session.request({ authority: AUTHORITY });
  await stream.response;
  const reader = new Reader(stream);
  sockets.server.destroy();
  assert.equal((await reader.closed)?.code, 'CV-TUNNEL-CLOSED');
  assert.equal((await client.closed)?.code, 'CV-TUNNEL-CLOSED');
  assert.equal((await server.closed)?.code, 'CV-TUNNEL-CLOSED');
});

test('a peer that closes before it spoke HTTP/2 is a failed handshake', async () => {
  const sockets = await tlsPair();
  await using _ = sockets;
  const client = new Peer('client', sockets.client);
  sockets.server.destroy();
  assert.equal((await client.closed)?.code, 'CV-TUNNEL-HTTP2');
});

test('a peer that never speaks HTTP/2 is given up after 30 s', async () => {
  const sockets = await tlsPair();
  await using _ = sockets;
  const clock = new FakeClock();
  const client = new Peer('client', sockets.client, { clock });
  clock.advance(29_999);
  assert.equal(client.session.isUsable, true);
  clock.advance(1);
  assert.equal((await client.closed)?.code, 'CV-TUNNEL-HTTP2');
});

test('pings keep a live session, and one whose peer is only acknowledged by its kernel is dead after three of them', async () => {
  const sockets = await tlsPair();
  await using _ = sockets;
  const clock = new FakeClock();
  const server = new Peer('server', sockets.server, accept);
  const client = new Peer('client', sockets.client, { clock });
  const stream = client.session.request({ authority: AUTHORITY });
  await stream.response;
  for (let i = 0; i < 3; i++) {
    clock.advance(10_000);
    // The answer to a request sent after the PING comes after the answer to the PING.
    const probe = client.session.request({ authority: AUTHORITY });
    await probe.response;
    probe.destroy();
  }
  sockets.server.pause();
  clock.advance(10_000);
  clock.advance(59_999);
  assert.equal(client.session.isUsable, true);
  clock.advance(1);
  assert.equal((await client.closed)?.code, 'CV-TUNNEL-DEAD');
  await assert.rejects(
    new Reader(stream).closed.then((error) => Promise.reject(error)),
    { code: 'CV-TUNNEL-DEAD' },
  );
  server.session.destroy();
  await once(sockets.server, 'close');
});

test('a peer that has no CPU for 20 s before its first SETTINGS is waited for', async () => {
  const sockets = await tlsPair();
  await using _ = sockets;
  const clock = new FakeClock();
  const client = new Peer('client', sockets.client, { clock });
  const stream = client.session.request({ authority: AUTHORITY });

  clock.advance(20_000);
  new Peer('server', sockets.server, accept);

  assert.equal((await stream.response).status, 200);
});

test('a session goes on whose peer had no CPU for a minute, and neither had we', async () => {
  const sockets = await tlsPair();
  await using _ = sockets;
  const clock = new FakeClock();
  new Peer('server', sockets.server, accept);
  const client = new Peer('client', sockets.client, { clock });
  await client.session.request({ authority: AUTHORITY }).response;
  sockets.server.pause();
  clock.advance(10_000);
  clock.advance(30_000);
  clock.stall(30_000);
  sockets.server.resume();
  const probe = client.session.request({ authority: AUTHORITY });
  await probe.response;
  probe.destroy();
  clock.advance(9_000);
  assert.equal(client.session.isUsable, true);
});

test('a tunnel that ends in order waits for a peer that reads its last words slowly', async () => {
  const sockets = await tlsPair();
  await using _ = sockets;
  const clock = new FakeClock();
  const bytes = 3 * 1024 * 1024;
  const server = new Peer('server', sockets.server, { ...accept, clock });
  const client = new Peer('client', sockets.client);
  const stream = client.session.request({ authority: AUTHORITY });
  const answer = new Reader(stream, { keep: false });
  await stream.response;
  const far = server.streams[0]?.stream ?? assert.fail('no stream');
  stream.end();
  await new Reader(far).ended;
  sockets.client.pause();
  far.write(Buffer.alloc(bytes, 7));
  far.end();
  await until('the server has said all', () => server.session.activeStreams === 0);
  server.session.destroy();
  assert.equal(await server.closed, undefined);
  await until('the last words are with the kernel', () => sockets.server.writableFinished);
  clock.advance(20_000);
  // It has not read the GOAWAY yet. A socket that is closed would answer this with a reset, and what was not read is lost.
  const late = client.session.request({ authority: AUTHORITY });
  await new Promise(setImmediate);
  sockets.client.resume();
  await assert.rejects(late.response, { code: 'CV-TUNNEL-CLOSED' });
  assert.equal(await answer.closed, undefined);
  assert.equal(answer.bytes, bytes);
  await until('both are gone', () => {
    clock.advance(1_000);
    return sockets.server.destroyed;
  });
});

test('a receiver that throws ends its stream and no other', async () => {
  await using pair = await enginePair(accept);
  const first = await connected(pair);
  const second = await connected(pair);
  const broken = new Reader(first.near);
  first.far.open({
    onData: () => {
      throw new Error('bug');
    },
    onEnd: () => undefined,
    onDrain: () => undefined,
    onClose: () => undefined,
  });
  first.near.write(Buffer.from('x'));
  assert.equal((await broken.closed)?.code, 'CV-TUNNEL-CLOSED');
  const reader = new Reader(second.far);
  second.near.write(Buffer.from('fine'));
  await reader.until(4);
});

test('100 streams at once echo what they are told', async () => {
  await using pair = await enginePair({ onStream: echo });
  await Promise.all(
    Array.from({ length: 100 }, async (_, i) => {
      const stream = pair.client.session.request({ authority: AUTHORITY });
      const reader = new Reader(stream);
      for (let n = 0; n < 20; n++) {
        stream.write(Buffer.from(`${i}:${n};`.padEnd(1024, '.')));
        await reader.until((n + 1) * 1024);
      }
      stream.end();
      await reader.closed;
      assert.equal(reader.text(), Array.from({ length: 20 }, (__, n) => `${i}:${n};`.padEnd(1024, '.')).join(''));
    }),
  );
});

test('a short message overtakes the backlog of a busy stream', async () => {
  await using pair = await enginePair(accept);
  const bulk = await connected(pair);
  const short = await connected(pair);
  const bulkReader = new Reader(bulk.far, { keep: false });
  const shortReader = new Reader(short.far);
  let bulkBefore = -1;
  const count = shortReader.onData.bind(shortReader);
  shortReader.onData = (chunk) => {
    if (bulkBefore < 0) bulkBefore = bulkReader.bytes;
    count(chunk);
  };
  const chunk = Buffer.alloc(64 * 1024);
  const writer = new Reader(bulk.near);
  // A writer that does not wait when it is told to: the worst neighbour.
  const written = 16 * chunk.length;
  for (let i = 0; i < 16; i++) bulk.near.write(chunk);
  short.near.write(Buffer.from('urgent'));
  await shortReader.until(6);
  await bulkReader.until(written);
  assert.ok(bulkBefore < written / 2, `${bulkBefore} of ${written} octets came before it`);
  assert.equal(writer.closes, 0);
});

test('a receiver that throws when told to go on or that the peer has ended breaks its own stream only', async () => {
  await using pair = await enginePair(accept);
  const { near, far } = await connected(pair);
  const closed = Promise.withResolvers<MeshError | undefined>();
  near.open({
    onData: () => undefined,
    onEnd: () => {
      throw new Error('bug');
    },
    onDrain: () => undefined,
    onClose: closed.resolve,
  });
  far.end();
  assert.equal((await closed.promise)?.code, 'CV-BUG');
  const next = await connected(pair);
  assert.equal(next.near.isClosed, false);
});

test('what comes over TLS is lent, not allocated; a Node that no longer allows it is noticed here', async () => {
  await using pair = await enginePair(accept);
  const { near, far } = await connected(pair);
  assert.deepEqual([near.isLending, far.isLending], [true, true]);
});
