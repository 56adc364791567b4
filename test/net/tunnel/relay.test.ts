import assert from 'node:assert/strict';
import { once } from 'node:events';
import net from 'node:net';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { MeshError } from '../../../src/base/errors.ts';
import { linuxSys } from '../../../src/sys/linux.ts';
import { systemClock } from '../../../src/sys/system-clock.ts';
import { listenOn } from '../../../src/sys/tcp.ts';
import { Relay } from '../../../src/tunnel/relay.ts';
import { SocketStream } from '../../../src/tunnel/socket-stream.ts';
import { readToEnd, tcpPair } from '../../support/tcp.ts';
import { until } from '../../support/until.ts';
import { enginePair } from './h2-peers.ts';

interface Joined extends AsyncDisposable {
  readonly client: Awaited<ReturnType<typeof tcpPair>>;
  readonly server: Awaited<ReturnType<typeof tcpPair>>;
  readonly relay: Relay;
  readonly done: Promise<{ error: MeshError | undefined; sent: number; received: number }>;
}

async function joined(): Promise<Joined> {
  const client = await tcpPair();
  const server = await tcpPair();
  // Connections are cut here on purpose.
  for (const socket of [client.near, client.far, server.near, server.far]) socket.on('error', () => {});
  const end = Promise.withResolvers<{ error: MeshError | undefined; sent: number; received: number }>();
  let sent = 0;
  let received = 0;
  const relay = new Relay(new SocketStream(client.far), new SocketStream(server.near), {
    addClientBytes: (bytes) => (sent += bytes),
    addServerBytes: (bytes) => (received += bytes),
    relayDone: (error) => end.resolve({ error, sent, received }),
  });
  return {
    client,
    server,
    relay,
    done: end.promise,
    async [Symbol.asyncDispose]() {
      await client[Symbol.asyncDispose]();
      await server[Symbol.asyncDispose]();
    },
  };
}

test('the answer still arrives after the client has half-closed', async () => {
  await using pair = await joined();
  pair.relay.start();

  pair.client.near.end('request');
  assert.equal(await readToEnd(pair.server.far), 'request');
  pair.server.far.end('response');
  assert.equal(await readToEnd(pair.client.near), 'response');

  assert.deepEqual(await pair.done, { error: undefined, sent: 7, received: 8 });
});

test('a reset on one side resets the other and is no error', async () => {
  await using pair = await joined();
  pair.relay.start();
  pair.server.far.resume();
  const reset = closed(pair.server.far);

  pair.client.near.resetAndDestroy();

  await reset;
  assert.equal(pair.server.far.errored instanceof Error, true, 'the server side saw ECONNRESET');
  assert.equal((await pair.done).error, undefined);
});

test('closing a relay ends both sockets and reports why', async () => {
  await using pair = await joined();
  pair.relay.start();
  for (const socket of [pair.client.near, pair.server.far]) socket.resume();
  const both = Promise.all([closed(pair.client.near), closed(pair.server.far)]);

  pair.relay.close(new MeshError('CV-POLICY-CHANGED', 'connection closed due to policy change'));

  await both;
  assert.equal((await pair.done).error?.code, 'CV-POLICY-CHANGED');
});

/** Fills every buffer on the way to a reader that does not read, until the relay holds bytes it cannot write. */
async function stalled(pair: Joined): Promise<void> {
  pair.server.far.pause();
  pair.relay.start();
  while (pair.server.near.writableLength === 0) {
    pair.client.near.write(Buffer.alloc(256 * 1024, 1));
    await new Promise((resolve) => setImmediate(resolve));
  }
}

test('closing a relay ends it at once also when a reader has stopped reading', { timeout: 90_000 }, async () => {
  await using pair = await joined();
  await stalled(pair);
  const client = closed(pair.client.near);

  pair.relay.close(new MeshError('CV-POLICY-CHANGED', 'connection closed due to policy change'));

  assert.equal((await pair.done).error?.code, 'CV-POLICY-CHANGED');
  await client;
});

test('a connection that is cut never looks as if it had ended in order', { timeout: 90_000 }, async () => {
  for (let round = 0; round < 20; round += 1) {
    await using pair = await joined();
    pair.relay.start();
    const seen: string[] = [];
    pair.server.far.on('end', () => seen.push('end')).on('error', () => seen.push('reset'));
    pair.client.near.write('half of it');
    await once(pair.server.far, 'data');

    pair.relay.close(new MeshError('CV-DRAIN', 'connection closed due to connection drain'));

    await closed(pair.server.far);
    assert.deepEqual(seen, ['reset']);
  }
});

test('a reset by the application ends a tunnelled connection without an error', { timeout: 90_000 }, async () => {
  const end = Promise.withResolvers<MeshError | undefined>();
  const app = await tcpPair();
  const owner = { addClientBytes: () => {}, addServerBytes: () => {}, relayDone: end.resolve };
  await using peers = await enginePair({
    onStream: (stream) => {
      stream.respond(200);
      new Relay(stream, new SocketStream(app.near), owner).start();
      app.far.resetAndDestroy();
    },
  });

  await peers.client.session.request({ authority: '10.0.0.1:80' }).response;

  assert.equal(await end.promise, undefined);
  await app[Symbol.asyncDispose]();
});

test('a reset that comes with the end of the other direction leaves no socket open', { timeout: 90_000 }, async () => {
  await using pair = await joined();
  pair.relay.start();
  pair.client.near.resume();
  pair.server.far.resume();
  pair.server.near.once('end', () => pair.relay.close(new MeshError('CV-DRAIN', 'drain')));
  const client = closed(pair.client.near);

  pair.server.far.end();

  assert.equal((await pair.done).error?.code, 'CV-DRAIN');
  await client;
});

test('a reader that stops bounds what the relay buffers', async () => {
  await using pair = await joined();
  pair.relay.start();
  const chunk = Buffer.alloc(64 * 1024, 1);
  let written = 0;
  pair.server.far.pause();
  // Kernel buffers differ by machine; what must hold is that the writer is stopped at all, far under 64 MiB.
  while (written < 64 * 1024 * 1024) {
    written += chunk.length;
    if (!pair.client.near.write(chunk)) {
      const drained = await Promise.race([once(pair.client.near, 'drain').then(() => true), settled()]);
      if (!drained) break;
    }
  }
  assert(written < 32 * 1024 * 1024, `the writer was never stopped, ${written} bytes taken`);
  assert(pair.server.near.writableLength <= 512 * 1024, `relay buffers ${pair.server.near.writableLength} bytes`);
});

/** Resolves at `close`; unlike `once`, an error on the way is expected. */
function closed(socket: net.Socket): Promise<void> {
  socket.on('error', () => {});
  return new Promise((resolve) => socket.once('close', () => resolve()));
}

/** False once the event loop has been idle for a while: nothing drains any more. */
async function settled(): Promise<boolean> {
  const { setTimeout: after } = await import('node:timers/promises');
  await after(300);
  return false;
}

test('a quiesced relay has flushed all it read, moves nothing more, and goes on when told', async () => {
  await using pair = await joined();
  pair.relay.start();
  pair.client.near.write('before');
  assert.equal(String((await once(pair.server.far, 'data'))[0]), 'before');

  await pair.relay.quiesce(systemClock);
  assert.equal(pair.server.near.writableLength, 0);
  pair.client.near.write('after');
  const early = await Promise.race([once(pair.server.far, 'data').then(() => true), settled()]);
  assert.equal(early, false, 'bytes moved while quiesced');

  const later = once(pair.server.far, 'data');
  pair.relay.unquiesce();
  assert.equal(String((await later)[0]), 'after');
});

test('a quiesced relay reads no more, also when a reader that had stopped takes the rest', {
  timeout: 90_000,
}, async () => {
  await using pair = await joined();
  await stalled(pair);
  // For good: the kernel may take some more at first.
  for (let still = 0, held = -1; still < 100; await nextTurn()) {
    const { writableLength } = pair.server.near;
    still = writableLength === held && held > 0 ? still + 1 : 0;
    held = writableLength;
    if (held === 0) pair.client.near.write(Buffer.alloc(256 * 1024, 1));
  }
  await pair.relay.quiesce(systemClock, 1);
  const looks = {};
  pair.relay.takeIdle('any', looks);

  pair.server.far.resume();
  await until('the reader has taken the rest', () => pair.server.near.writableLength === 0);
  // What the client has sent meanwhile could be read in any of these.
  for (let turn = 0; turn < 10; turn += 1) await nextTurn();
  assert.equal(pair.relay.takeIdle('any', looks), true, 'bytes moved while quiesced');

  pair.relay.unquiesce();
  await until('the relay goes on', () => !pair.relay.takeIdle('any', looks));
});

test('a quiesced relay has told the kernel every end, too', async () => {
  await using pair = await joined();
  pair.relay.start();
  pair.client.near.end();
  await once(pair.client.far, 'end');
  assert.deepEqual([pair.server.near.writableEnded, pair.server.near.writableFinished], [true, false]);

  await pair.relay.quiesce(systemClock);

  assert.ok(pair.server.near.writableFinished);
});

test('sockets that lend one buffer to many relays never mix their bytes up', async () => {
  const pairs = await Promise.all(Array.from({ length: 8 }, (_, i) => lendingPair(i)));
  const texts = await Promise.all(pairs.map((pair) => pair.received));
  assert.deepEqual(
    texts.map((bytes, i) => bytes.length === BULK && bytes.every((byte) => byte === i + 1)),
    pairs.map(() => true),
  );
});

/** Far over what kernel buffers hold, so that a part of many chunks must be kept while others are read. */
const BULK = 8 * 1024 * 1024;

/** A lending source relayed to a slow reader: 8 MiB of the octet `index + 1`. */
async function lendingPair(index: number): Promise<{ received: Promise<Buffer> }> {
  const listener = linuxSys.listenTcp(undefined, { address: '127.0.0.1', port: 0 });
  const accepted = Promise.withResolvers<net.Socket>();
  const server = listenOn(listener.fd, { onConnection: accepted.resolve, isLending: true });
  const address = server.address() as net.AddressInfo;
  const source = net.connect(address.port, '127.0.0.1');
  const target = await tcpPair();
  const chunks: Buffer[] = [];
  target.far.on('data', (chunk: Buffer) => {
    chunks.push(chunk);
    target.far.pause();
    setImmediate(() => target.far.resume());
  });
  const ended = once(target.far, 'end');
  const owner = { addClientBytes: () => {}, addServerBytes: () => {}, relayDone: () => {} };
  const streams = [new SocketStream(await accepted.promise), new SocketStream(target.near)] as const;
  new Relay(...streams, owner).start();
  source.end(Buffer.alloc(BULK, index + 1));
  const received = ended.then(async () => {
    source.destroy();
    server.close();
    await target[Symbol.asyncDispose]();
    return Buffer.concat(chunks);
  });
  return { received };
}

test('records that come in one turn leave together, lent or not', async () => {
  await using pair = await tcpPair();
  const stream = new SocketStream(pair.near);
  const record = Buffer.alloc(16 * 1024, 1);
  for (const isLent of [true, false, true]) stream.write(record, isLent);
  assert.deepEqual([pair.near.bytesWritten, stream.bufferedBytes], [0, 3 * record.length]);

  await nextTurn();

  assert.equal(pair.near.bytesWritten, 3 * record.length);
});
