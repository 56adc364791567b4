import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import type net from 'node:net';
import { test } from 'node:test';
import { MeshError } from '../../../src/base/errors.ts';
import { linuxSys } from '../../../src/sys/linux.ts';
import { openNetns } from '../../../src/sys/netns.ts';
import { localAddress } from '../../../src/sys/sockets.ts';
import {
  getOption,
  SO_KEEPALIVE,
  SO_MARK,
  SO_REUSEPORT,
  TCP_KEEPCNT,
  TCP_KEEPIDLE,
  TCP_KEEPINTVL,
  TCP_NODELAY,
  TCP_USER_TIMEOUT,
} from '../../../src/sys/sockopt.ts';
import { systemClock } from '../../../src/sys/system-clock.ts';
import { dialTcp, dialTcpSpoofed, listenOn, socketFd } from '../../../src/sys/tcp.ts';
import { dialFrom, readFrom, serveIn, skipWithoutRoot, TestNetns, Wire } from '../../support/netns.ts';
import { PYTHON } from '../../support/python-program.ts';

const privileged = { skip: skipWithoutRoot, timeout: 120_000 };
const MARK = 0x539;
const keepalive = { idleSeconds: 180, intervalSeconds: 180, probes: 9, userTimeoutMs: 1_800_000 };
const limits = { timeoutMs: 5_000, clock: systemClock };

function hasCode(code: string): (error: unknown) => boolean {
  return (error) => error instanceof MeshError && error.code === code;
}

function openDescriptors(): number {
  return readdirSync('/proc/self/fd').length;
}

/** Says the address of the client and ends. */
function sayClient(socket: net.Socket): void {
  socket.end(`${socket.remoteAddress}`);
}

test('a socket made in a pod listens there and the thread stays in its own namespace', privileged, async () => {
  await using pod = await TestNetns.create();
  const before = readlinkSync('/proc/thread-self/ns/net');
  await using server = await serveIn(pod, {}, sayClient);

  assert.equal(readlinkSync('/proc/thread-self/ns/net'), before);
  assert.match(await pod.exec(['ss', '-ltn']), new RegExp(`\\*:${server.port} `));
  assert.match(readFileSync('/proc/net/tcp6', 'utf8'), /local_address/);
});

test('a dual-stack listener accepts both families', privileged, async () => {
  await using pod = await TestNetns.create();
  await using server = await serveIn(pod, {}, sayClient);

  assert.equal(await readFrom(pod, { ip: '127.0.0.1', port: server.port }), '::ffff:127.0.0.1');
  assert.equal(await readFrom(pod, { ip: '::1', port: server.port }), '::1');
});

test('accepted sockets have the mark, keepalive and no-delay of their listener', privileged, async () => {
  await using pod = await TestNetns.create();
  const accepted = Promise.withResolvers<net.Socket>();
  await using server = await serveIn(
    pod,
    { mark: MARK, keepalive, isReusePort: true, isTransparent: true },
    accepted.resolve,
  );

  await dialFrom(pod, { ip: '127.0.0.1', port: server.port });

  const fd = socketFd(await accepted.promise) ?? -1;
  assert.equal(getOption(fd, SO_MARK), MARK);
  assert.equal(getOption(fd, TCP_NODELAY), 1);
  assert.equal(getOption(fd, SO_KEEPALIVE), 1);
  assert.equal(getOption(fd, TCP_KEEPIDLE), 180);
  assert.equal(getOption(fd, TCP_KEEPINTVL), 180);
  assert.equal(getOption(fd, TCP_KEEPCNT), 9);
  assert.equal(getOption(fd, TCP_USER_TIMEOUT), 1_800_000);
});

test('dialled sockets have mark, keepalive and no-delay, and no REUSEPORT', privileged, async () => {
  await using pod = await TestNetns.create();
  await using server = await serveIn(pod, {}, () => {});
  const options = { family: 4, mark: MARK, keepalive } as const;

  const socket = await dialTcp(linuxSys, pod.handle, { ip: '127.0.0.1', port: server.port }, options, limits);

  const fd = socketFd(socket) ?? -1;
  assert.equal(getOption(fd, SO_MARK), MARK);
  assert.equal(getOption(fd, TCP_NODELAY), 1);
  assert.equal(getOption(fd, TCP_KEEPIDLE), 180);
  assert.equal(getOption(fd, TCP_USER_TIMEOUT), 1_800_000);
  assert.equal(getOption(fd, SO_REUSEPORT), 0);
  socket.destroy();
});

test('listeners without REUSEPORT do not get it', privileged, async () => {
  await using pod = await TestNetns.create();
  const plain = linuxSys.listenTcp(pod.handle, { address: '::', port: 0, mark: MARK });
  const shared = linuxSys.listenTcp(pod.handle, { address: '::', port: 0, mark: MARK, isReusePort: true });

  assert.deepEqual([getOption(plain.fd, SO_REUSEPORT), getOption(plain.fd, SO_MARK)], [0, MARK]);
  assert.deepEqual([getOption(shared.fd, SO_REUSEPORT), getOption(shared.fd, SO_MARK)], [1, MARK]);
  linuxSys.close(plain.fd);
  linuxSys.close(shared.fd);
});

for (const ip of ['198.51.100.7', '2001:db8::7'] as const) {
  test(`a dial may come from ${ip}, which is not an address of the pod`, privileged, async () => {
    await using wire = await Wire.create();
    const pod = await wire.addPod();
    await returnPathThroughLo(pod.netns);
    await using server = await serveIn(pod.netns, {}, sayClient);
    const family = ip.includes(':') ? 6 : 4;
    const to = { ip: family === 6 ? pod.ip6 : pod.ip4, port: server.port };

    const { socket, isSpoofed } = await dialTcpSpoofed(
      linuxSys,
      pod.netns.handle,
      to,
      { family, transparentSourceIp: ip, mark: MARK },
      limits,
    );
    const [seen] = (await once(socket.resume(), 'data')) as [Buffer];

    assert.equal(isSpoofed, true);
    assert.equal(seen.toString().replace('::ffff:', ''), ip);
    socket.destroy();
  });
}

const STRANGER = { family: 4, transparentSourceIp: '198.51.100.7', mark: MARK } as const;

/** The ephemeral ports of Linux, and those of services. */
function isOwners(port: number): boolean {
  return port < 16_000 || (port >= 32_000 && port < 61_000);
}

test(
  'a borrowed address comes with a port of its own, which its owner hardly uses, also when most are taken',
  privileged,
  async () => {
    await using pod = await TestNetns.create();
    using undo = new DisposableStack();
    const ports = Array.from({ length: 6_000 }, () => {
      const { fd } = linuxSys.socketTcp(pod.handle, STRANGER);
      undo.defer(() => linuxSys.close(fd));
      return localAddress(fd)?.port ?? 0;
    });
    assert.equal(new Set(ports).size, ports.length);
    assert.deepEqual(ports.filter(isOwners), []);
  },
);

test('an application can listen on a port that is borrowed just then', privileged, async () => {
  await using pod = await TestNetns.create();
  const { fd } = linuxSys.socketTcp(pod.handle, STRANGER);
  using _borrowed = { [Symbol.dispose]: () => linuxSys.close(fd) };
  const { port = 0 } = localAddress(fd) ?? {};
  await using server = await serveIn(pod, { port }, sayClient);
  assert.equal(server.port, port);
});

/** What capture installs, reduced to its core: replies to the foreign address are delivered to the agent's socket. */
async function returnPathThroughLo(netns: TestNetns): Promise<void> {
  await netns.exec(
    ['nft', '-f', '-'],
    `table inet t {
      chain pre { type filter hook prerouting priority -150; meta mark 0x539 ct mark set 0x111; }
      chain out { type route hook output priority -150; ct mark 0x111 meta mark set ct mark; }
    }`,
  );
  for (const family of ['-4', '-6']) {
    await netns.exec(['ip', family, 'rule', 'add', 'fwmark', '0x111/0xfff', 'pref', '32764', 'lookup', '100']);
    await netns.exec(['ip', family, 'route', 'add', 'local', 'default', 'dev', 'lo', 'table', '100']);
  }
}

test('the original destination of a redirected connection is known, IPv4 and IPv6', privileged, async () => {
  await using wire = await Wire.create();
  const [client, other] = [await wire.addPod(), await wire.addPod()];
  const seen: string[] = [];
  await using server = await serveIn(client.netns, { mark: MARK }, (socket) => {
    const original = linuxSys.originalDestination(socketFd(socket) ?? -1);
    seen.push(`${original?.ip}|${original?.port}`);
    socket.end();
  });
  await client.netns.exec(
    ['nft', '-f', '-'],
    `table inet t {\n chain out { type nat hook output priority -100; tcp dport 80 redirect to :${server.port}; }\n}`,
  );

  await readFrom(client.netns, { ip: other.ip4, port: 80 });
  await readFrom(client.netns, { ip: other.ip6, port: 80 });

  assert.deepEqual(seen, [`${other.ip4}|80`, `${other.ip6}|80`]);
});

test('a socket that nothing redirected has no original destination', privileged, async () => {
  await using pod = await TestNetns.create();
  const fd = linuxSys.socketUdp(pod.handle, { address: '127.0.0.1', port: 0, mark: MARK });
  assert.equal(linuxSys.originalDestination(fd), undefined);
  linuxSys.close(fd);
});

test('a pod without IPv6 is told from one with it', privileged, async () => {
  await using both = await TestNetns.create('dual');
  await using v4 = await TestNetns.create('v4');
  assert.equal(linuxSys.hasIpv6(both.handle, 'lo'), true);
  assert.equal(linuxSys.hasIpv6(v4.handle, 'lo'), false);
  assert.equal(linuxSys.hasIpv6(both.handle, 'absent0'), false);
});

test('equal namespaces have equal ids, different ones do not', privileged, async () => {
  await using one = await TestNetns.create();
  await using two = await TestNetns.create();
  using again = openNetns(one.path);
  assert.deepEqual(again.id, one.handle.id);
  assert.notDeepEqual(again.id, two.handle.id);
});

test('the first namespace of the machine is told from one of a pod', privileged, async () => {
  await using netns = await TestNetns.create();
  assert.equal(linuxSys.isMachineNetns(netns.handle), false);
  using own = linuxSys.openNetns('/proc/self/ns/net');
  assert.equal(linuxSys.isMachineNetns(own), existsSync('/proc/sys/net/core/netdev_budget'));
});

test('a tool runs inside the pod and gets its input', privileged, async () => {
  await using pod = await TestNetns.create();
  const before = readlinkSync('/proc/thread-self/ns/net');
  const { code, stdout } = await linuxSys.runInNetns(pod.handle, ['sh', '-c', 'readlink /proc/self/ns/net; cat'], 'hi');
  assert.deepEqual([code, stdout], [0, `net:[${pod.handle.id.inode}]\nhi`]);
  assert.equal(readlinkSync('/proc/thread-self/ns/net'), before);
});

test('no failure leaves a descriptor open', privileged, async () => {
  await using pod = await TestNetns.create();
  const taken = linuxSys.listenTcp(pod.handle, { address: '::', port: 0 });
  const server = listenOn(taken.fd, { onConnection: (socket) => socket.destroy() });
  await once(server, 'listening');
  const { port } = server.address() as net.AddressInfo;
  const free = linuxSys.listenTcp(pod.handle, { address: '::', port: 0 });
  const freePort = portOf(await pod.exec(['ss', '-ltnH']), port);
  linuxSys.close(free.fd);
  const dial = (to: { ip: string; port: number }): Promise<unknown> =>
    dialTcp(linuxSys, pod.handle, to, { family: 4 }, limits);
  await assert.rejects(dial({ ip: '127.0.0.1', port: freePort }));
  await assert.rejects(linuxSys.runInNetns(pod.handle, ['/does/not/exist']));
  const before = openDescriptors();

  for (let i = 0; i < 50; i++) {
    assert.throws(() => linuxSys.listenTcp(pod.handle, { address: '::', port }), hasCode('CV-BIND'));
    assert.throws(() => linuxSys.listenTcp(pod.handle, { address: '203.0.113.1', port: 1 }), hasCode('CV-BIND'));
    assert.throws(() => linuxSys.socketUdp(pod.handle, { address: '203.0.113.1', port: 1 }), hasCode('CV-BIND'));
    assert.throws(() => linuxSys.openNetns('/proc/self/status'), hasCode('CV-NETNS'));
    assert.throws(() => linuxSys.openNetns('/proc/self/ns/pid'), hasCode('CV-NETNS'));
    assert.throws(() => linuxSys.openNetns('/nowhere'), hasCode('CV-NETNS'));
    await assert.rejects(dial({ ip: '127.0.0.1', port: freePort }), hasCode('CV-APP-REFUSED'));
    await assert.rejects(linuxSys.runInNetns(pod.handle, ['/does/not/exist']), hasCode('CV-SYS'));
  }

  assert.equal(openDescriptors(), before);
  server.close();
});

function portOf(listeners: string, not: number): number {
  const ports = [...listeners.matchAll(/\*:(\d+) /g)].map(([, port]) => Number(port));
  return ports.find((port) => port !== not && port !== 0) ?? -1;
}

test(
  'an address is a pod’s own when an interface there has it, whatever a sysctl lets it bind to',
  privileged,
  async () => {
    await using wire = await Wire.create();
    const pod = await wire.addPod();
    const other = await wire.addPod();
    await pod.netns.exec(['sysctl', '-qw', 'net.ipv4.ip_nonlocal_bind=1', 'net.ipv6.ip_nonlocal_bind=1']);
    const isOwn = (ip: string): boolean => linuxSys.isOwnAddress(pod.netns.handle, ip);
    assert.deepEqual(['127.0.0.1', '::1', pod.ip4, pod.ip6].map(isOwn), [true, true, true, true]);
    assert.deepEqual([other.ip4, other.ip6, '192.0.2.1', 'no address'].map(isOwn), [false, false, false, false]);
  },
);

/** Opens and leaves so many connections, of which the listener's ends stay. */
const LEAVE_CONNECTIONS = `
import socket, sys, time
for port in range(9000, 9004):
    listener = socket.socket()
    listener.bind(('127.0.0.1', port))
    listener.listen(4096)
    globals()['listener%d' % port] = listener
    for _ in range(4000):
        with socket.socket() as client:
            client.connect(('127.0.0.1', port))
print('open', flush=True)
time.sleep(60)
`;

test('a pod with more sockets than one pod needs is listed whole', { ...privileged, timeout: 60_000 }, async () => {
  await using pod = await TestNetns.create();
  const { firstLine } = await pod.start([PYTHON, '-c', LEAVE_CONNECTIONS]);
  assert.equal(firstLine, 'open');
  const left = linuxSys.tcpSockets(pod.handle).filter(({ local, isListener }) => local.port < 9_004 && !isListener);
  assert.equal(left.length, 16_000);
});
