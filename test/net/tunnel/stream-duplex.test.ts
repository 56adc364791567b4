import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { test } from 'node:test';
import tls from 'node:tls';
import type { MeshError } from '../../../src/base/errors.ts';
import type { H2Stream } from '../../../src/tunnel/h2-stream.ts';
import { duplexOf } from '../../../src/tunnel/stream-duplex.ts';
import { echo, enginePair, Peer, Reader, tlsOptions } from './h2-peers.ts';

const bounded = { timeout: 90_000 };
const accept = { onStream: (stream: H2Stream) => stream.respond(200) };

/** A session inside a stream of another one, both ours. */
async function nested(onStream: (stream: H2Stream) => void) {
  const outer = await enginePair(accept);
  const near = outer.client.session.request({ authority: 'far.example:80' });
  await near.response;
  const far = outer.server.streams[0]?.stream;
  assert(far !== undefined);
  const server = new tls.TLSSocket(duplexOf(far), { ...tlsOptions, isServer: true });
  const client = tls.connect({ ...tlsOptions, socket: duplexOf(near), checkServerIdentity: () => undefined });
  await once(client, 'secureConnect');
  return {
    near,
    server: new Peer('server', server, { onStream }),
    client: new Peer('client', client),
    [Symbol.asyncDispose]: () => outer[Symbol.asyncDispose](),
  };
}

test('TLS and HTTP/2 run inside a stream, bit for bit, and end with it in order', bounded, async () => {
  await using world = await nested(echo);
  const stream = world.client.session.request({ authority: '10.0.0.1:80' });
  assert.equal((await stream.response).status, 200);
  const sent = randomBytes(8 * 1024 * 1024);
  const reader = new Reader(stream);
  for (let at = 0; at < sent.length; at += 65_536) {
    if (!stream.write(sent.subarray(at, at + 65_536))) await reader.drained();
  }
  stream.end();
  await reader.closed;
  assert(Buffer.concat(reader.chunks).equals(sent));

  world.client.session.destroy();

  assert.equal(await world.server.closed, undefined);
});

test(
  'what is read inside a stream is not lent: the session around it still reads from the one buffer',
  bounded,
  async () => {
    await using world = await nested(accept.onStream);
    const stream = world.client.session.request({ authority: '10.0.0.1:80' });
    await stream.response;
    assert.deepEqual([stream.isLending, world.server.streams[0]?.stream.isLending], [false, false]);
  },
);

test('the session inside a stream breaks with it, and says why', bounded, async () => {
  await using world = await nested(accept.onStream);
  const stream = world.client.session.request({ authority: '10.0.0.1:80' });
  await stream.response;
  const broken = new Promise<MeshError | undefined>((resolve) => {
    stream.open({ onData() {}, onEnd() {}, onDrain() {}, onClose: resolve });
  });

  world.near.reset(8);

  assert.equal((await broken)?.code, 'CV-TUNNEL-CLOSED');
  assert.equal((await world.client.closed)?.code, 'CV-TUNNEL-CLOSED');
});
