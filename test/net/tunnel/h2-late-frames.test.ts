import assert from 'node:assert/strict';
import { duplexPair } from 'node:stream';
import { test } from 'node:test';
import { DEFAULT_LIMITS } from '../../../src/tunnel/h2-settings.ts';
import type { H2Stream } from '../../../src/tunnel/h2-stream.ts';
import { FRAME, H2, SETTING } from '../../../src/wire/h2-protocol.ts';
import { frame, headersFrames, resetFrame, settingsAckFrame, settingsFrame } from '../../../src/wire/h2-write.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { heapAfterCollection } from '../../support/heap.ts';
import { until } from '../../support/until.ts';
import { Peer } from './h2-peers.ts';
import { Attack, block, connect, repeat } from './raw-client.ts';

/** All that a server lets a client have open at once. */
const MOST_STREAMS = 200;
const OK = block([[':status', '200']]).slice();

test('DATA on its way to as many streams as there can be, all of which we have just reset, is no abuse', async () => {
  await using attack = new Attack((stream) => stream.respond(200));
  attack.send(repeat(MOST_STREAMS, (i) => connect(2 * i + 1)));
  await attack.settle();
  for (const { stream } of attack.server.streams) stream.reset(H2.connectError);
  const data = new Uint8Array(16 * 1024);
  const frames = DEFAULT_LIMITS.ownResets.burst + 400;
  attack.send(repeat(frames, (i) => frame(FRAME.data, 0, 2 * (i % MOST_STREAMS) + 1, data)));
  attack.send(connect(2 * MOST_STREAMS + 1));
  await attack.settle();
  assert.equal(attack.server.session.isClosed, false);
  assert.equal(attack.server.streams.length, MOST_STREAMS + 1);
  assert.equal(attack.frames().filter(({ type }) => type === FRAME.rstStream).length, MOST_STREAMS);
});

test('answers to as many requests as there can be, all of which we have given up, leave the other streams alone', async () => {
  const [near, far] = duplexPair();
  near.on('error', () => undefined).resume();
  const client = new Peer('client', far, { clock: new FakeClock() });
  near.write(Buffer.concat([settingsFrame([]), settingsAckFrame()]));
  await until('the settings have come', () => client.session.peerMaxStreams > MOST_STREAMS);
  const kept = client.session.request({ authority: '10.0.0.1:80' });
  const given = Array.from({ length: MOST_STREAMS }, () => client.session.request({ authority: '10.0.0.1:80' }));
  const ids = given.map(({ id }) => id);
  for (const stream of given) stream.destroy();
  near.write(Buffer.concat([...ids, kept.id].map((id) => headersFrames(id, OK, false, 16_384))));
  assert.equal((await kept.response).status, 200);
  assert.equal(client.session.isClosed, false);
  client.session.destroy();
});

test('streams that the peer resets while its connection window is closed are forgotten', async () => {
  const streams: WeakRef<H2Stream>[] = [];
  await using attack = new Attack((stream) => {
    streams.push(new WeakRef(stream));
    stream.respond(200);
    stream.write(new Uint8Array(100_000));
  });
  attack.send(settingsFrame([[SETTING.initialWindowSize, 1_000_000]]));
  for (let id = 1; streams.length < 100; id += 2) {
    attack.send(connect(id));
    await attack.settle();
    // The first one has used the window up, and waits for more.
    if (id > 1) attack.send(resetFrame(id, H2.cancel));
    attack.clock.advance(1_000);
  }
  await attack.settle();
  assert.equal(attack.server.session.activeStreams, 1);
  attack.server.streams.length = 0;
  heapAfterCollection();
  // Bounded by what the garbage collector has reasons of its own to keep.
  assert.ok(streams.filter((stream) => stream.deref() !== undefined).length < 10);
});
