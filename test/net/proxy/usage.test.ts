import assert from 'node:assert/strict';
import { once } from 'node:events';
import type net from 'node:net';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { WorkloadUse } from '../../../src/telemetry/workload-use.ts';
import { clientHello } from '../../support/client-hello.ts';
import { until } from '../../support/until.ts';
import { ProxyWorld } from './proxy-world.ts';

const bounded = { timeout: 90_000 };

function usage(world: ProxyWorld): WorkloadUse {
  const [use] = world.proxies.usage();
  assert.ok(use !== undefined);
  return use;
}

test('connections, bytes both ways and time are counted for the pod, whichever way they come', bounded, async () => {
  await using world = new ProxyWorld();
  world.target = await world.app((socket) => socket.on('data', () => socket.write('a longer answer')));
  const client = await world.connect('plaintext');
  client.write('ask');
  await once(client, 'data');
  const { session } = await world.tunnel();
  const stream = session.request({ authority: `${world.target.ip}:${world.target.port}` });
  assert.equal((await stream.response).status, 200);
  const { connections, openConnections, handshakes, receivedBytes, sentBytes, loopSeconds } = usage(world);
  assert.deepEqual(
    { connections, openConnections, handshakes, receivedBytes, sentBytes },
    { connections: 2, openConnections: 2, handshakes: 1, receivedBytes: 3, sentBytes: 15 },
  );
  assert.ok(loopSeconds > 0);
});

test(
  'what waits for a reader that does not read is counted, and is no more when the connection ends',
  bounded,
  async () => {
    await using world = new ProxyWorld();
    const app = Promise.withResolvers<net.Socket>();
    world.target = await world.app((socket) => app.resolve(socket));
    const client = await world.connect('plaintext');
    const socket = await app.promise;
    // By splice or by copying, as the sizes of the reads come out.
    while (usage(world).bufferedBytes === 0) {
      if (client.writableLength === 0) client.write(Buffer.alloc(256 * 1024));
      await nextTurn();
    }
    socket.destroy();
    client.destroy();
    await until('the connection is over', () => usage(world).openConnections === 0);
    assert.equal(usage(world).bufferedBytes, 0);
  },
);

test('a peer that says nothing is a pending handshake, and no TLS is set up for it', bounded, async () => {
  await using world = new ProxyWorld();
  const silent = await world.connect('hbone');
  await until('the handshake is pending', () => usage(world).pendingHandshakes > 0);
  assert.equal(usage(world).handshakes, 0);
  silent.destroy();
  await until('the handshake is over', () => usage(world).pendingHandshakes === 0);
});

test('a peer that says half a greeting is one that says nothing', bounded, async () => {
  await using world = new ProxyWorld();
  const hello = await clientHello();
  const slow = await world.connect('hbone');
  slow.write(hello.subarray(0, -1));
  await until('the handshake is pending', () => usage(world).pendingHandshakes > 0);
  await world.tunnel();
  // The client knows first that its handshake is over.
  await until('one handshake is pending', () => usage(world).pendingHandshakes === 1);
  assert.equal(usage(world).handshakes, 1);
  slow.write(hello.subarray(-1));
  await once(slow, 'data');
  assert.equal(usage(world).handshakes, 2);
});

test('when handshakes make room a silent one goes first, though another is older', bounded, async () => {
  await using world = new ProxyWorld({ settings: { maxHandshakes: 2 } });
  const talking = await world.connect('hbone');
  // Its second flight never comes.
  talking.write(await clientHello());
  await until('the greeting is answered', () => usage(world).handshakes > 0);
  const silent = await world.connect('hbone');
  silent.resume().on('end', () => silent.destroy());
  const isOver = once(silent, 'close');
  await until('both are pending', () => usage(world).pendingHandshakes >= 2);
  await world.tunnel();
  await isOver;
  // The client knows first that the handshake is over.
  await until('one handshake is pending', () => usage(world).pendingHandshakes === 1);
  assert.equal(talking.destroyed, false);
});
