import assert from 'node:assert/strict';
import dgram from 'node:dgram';
import { once } from 'node:events';
import { test } from 'node:test';
import { linuxSys } from '../../../src/sys/linux.ts';
import { localAddress } from '../../../src/sys/sockets.ts';
import { getOption, SO_MARK, SO_REUSEPORT } from '../../../src/sys/sockopt.ts';
import { serveIn, skipWithoutRoot, TestNetns } from '../../support/netns.ts';

const privileged = { skip: skipWithoutRoot, timeout: 90_000 };

/** A Node datagram socket on a descriptor that lives in the pod. */
async function udpIn(pod: TestNetns, address: string, port = 0) {
  const fd = linuxSys.socketUdp(pod.handle, { address, port, mark: 0x539, isReusePort: true });
  const bound = localAddress(fd);
  assert(bound !== undefined);
  const socket = dgram.createSocket(address.includes(':') ? 'udp6' : 'udp4');
  const listening = once(socket, 'listening');
  socket.bind({ fd });
  await listening;
  return { fd, port: bound.port, socket, [Symbol.dispose]: () => void socket.close() };
}

for (const address of ['127.0.0.1', '::1'] as const) {
  test(`datagrams reach a socket in a pod on ${address}`, privileged, async () => {
    await using pod = await TestNetns.create();
    using server = await udpIn(pod, address);
    using client = await udpIn(pod, address);

    client.socket.send('ping', server.port, address);
    const [message, from] = (await once(server.socket, 'message')) as [Buffer, dgram.RemoteInfo];

    assert.deepEqual([message.toString(), from.port], ['ping', client.port]);
    assert.deepEqual([getOption(server.fd, SO_MARK), getOption(server.fd, SO_REUSEPORT)], [0x539, 1]);
  });
}

test('a port can be shared by the listeners of two agents, and not without asking for it', privileged, async () => {
  await using pod = await TestNetns.create();
  await using old = await serveIn(pod, { isReusePort: true }, (socket) => socket.end());
  const shared = linuxSys.listenTcp(pod.handle, { address: '::', port: old.port, isReusePort: true });
  assert.throws(() => linuxSys.listenTcp(pod.handle, { address: '::', port: old.port }), /EADDRINUSE/);
  linuxSys.close(shared.fd);
});
