import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import type { ByteStream } from '../../../src/tunnel/byte-stream.ts';
import { until } from '../../support/until.ts';
import { ProxyWorld } from './proxy-world.ts';

const bounded = { timeout: 60_000 };
const BYTES = 800_000;
const STREAMS = 8;

/** A pod whose turn is over after every second thing it does, because another one always wants the loop. */
function heldAgainAndAgain(): { readonly world: ProxyWorld } & Disposable {
  let nowMs = 0;
  const world = new ProxyWorld({ loopTime: { nowMs: () => (nowMs += 0.12), idleMs: () => 0 } });
  const other = world.proxies.loop.open();
  let isOver = false;
  const want = (): void => {
    other.enter();
    if (!isOver) setImmediate(want);
  };
  want();
  return { world, [Symbol.dispose]: () => void (isOver = true) };
}

/** Octets that show at once when some are lost, doubled or out of order. */
function numbered(seed: number): Buffer {
  return Buffer.from(Array.from({ length: BYTES }, (_, at) => (at * 7 + (at >> 8) + seed) % 251));
}

/** Sends all of `bytes` in small pieces, ends, and resolves with what came back until the other end. */
async function echo(stream: ByteStream, bytes: Buffer): Promise<Buffer> {
  const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
  const chunks: Uint8Array[] = [];
  let sent = 0;
  const go = (): void => {
    while (sent < bytes.length) {
      const piece = bytes.subarray(sent, sent + 3_000);
      sent += piece.length;
      if (!stream.write(piece)) return;
    }
    stream.end();
  };
  stream.open({
    onData: (chunk) => void chunks.push(new Uint8Array(chunk)),
    onEnd: () => resolve(Buffer.concat(chunks)),
    onDrain: go,
    onClose: (error) => reject(error ?? new Error(`closed after ${Buffer.concat(chunks).length} bytes`)),
  });
  go();
  return await promise;
}

test('streams of a tunnel whose pod is held again and again lose, double and reorder nothing', bounded, async () => {
  using held = heldAgainAndAgain();
  await using world = held.world;
  const { ip, port } = await world.app();
  const { session } = await world.tunnel();
  const echoes = Array.from({ length: STREAMS }, async (_, at) => {
    const stream = session.request({ authority: `${ip}:${port}` });
    assert.equal((await stream.response).status, 200);
    return (await echo(stream, numbered(at))).equals(numbered(at));
  });
  assert.deepEqual(
    await Promise.all(echoes),
    Array.from({ length: STREAMS }, () => true),
  );
  const [use] = world.proxies.usage();
  assert.ok((use?.heldTurns ?? 0) > 100, `held ${use?.heldTurns} times`);
  assert.equal(use?.receivedBytes, STREAMS * BYTES);
});

test('new connections of a pod that is held again and again are all served', bounded, async () => {
  using held = heldAgainAndAgain();
  await using world = held.world;
  world.target = await world.app();
  const echoes = Array.from({ length: 100 }, async () => {
    const socket = await world.connect('plaintext');
    socket.end('hello');
    const chunks: Buffer[] = [];
    socket.on('data', (chunk: Buffer) => chunks.push(chunk));
    await once(socket, 'end');
    return Buffer.concat(chunks).toString();
  });
  assert.deepEqual(new Set(await Promise.all(echoes)), new Set(['hello']));
});

test('handshakes of a pod that is held again and again all come to their end', bounded, async () => {
  using held = heldAgainAndAgain();
  await using world = held.world;
  const { ip, port } = await world.app();
  const tunnels = await Promise.all(Array.from({ length: 20 }, () => world.tunnel()));
  for (const { session } of tunnels) {
    assert.equal((await session.request({ authority: `${ip}:${port}` }).response).status, 200);
  }
});

test('of a pod that is flooded beside one that wants the loop everybody is accepted, in parts', bounded, async () => {
  using held = heldAgainAndAgain();
  await using world = held.world;
  const { ip, port } = await world.app();
  for (let i = 0; i < 300; i++) await world.connect('hbone');
  const { session } = await world.tunnel();

  assert.equal((await session.request({ authority: `${ip}:${port}` }).response).status, 200);
  // Of so many from one address 64 are kept.
  await until('those over 64 are refused', () => (world.records.totals().refused['CV-LIMIT'] ?? 0) >= 300 - 64);
});
