import assert from 'node:assert/strict';
import { EventEmitter, once } from 'node:events';
import net from 'node:net';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { type Arrival, socketArrival } from '../../../src/sys/arrivals.ts';
import { libc } from '../../../src/sys/libc.ts';
import { linuxSys } from '../../../src/sys/linux.ts';
import { localAddress } from '../../../src/sys/sockets.ts';
import { getOption, SO_RCVLOWAT } from '../../../src/sys/sockopt.ts';
import { listenForArrivals, socketFd } from '../../../src/sys/tcp.ts';
import { tcpPair } from '../../support/tcp.ts';

const bounded = { timeout: 90_000 };

const hasHello = (head: Uint8Array): boolean => head.length >= 5;

interface Pair extends AsyncDisposable {
  readonly near: net.Socket;
  readonly arrival: Arrival;
  readonly closed: Promise<void>;
}

/** A client, and what has arrived of it. */
async function pair(room?: typeof LITTLE_ROOM): Promise<Pair> {
  const { fd } = linuxSys.listenTcp(undefined, { address: '127.0.0.1', port: 0 });
  if (room !== undefined) libc.setsockopt(fd, room.level, room.option, Int32Array.of(room.bytes), 4);
  const { port = 0 } = localAddress(fd) ?? {};
  const arrived = Promise.withResolvers<Arrival>();
  const server = listenForArrivals(fd, { onArrival: arrived.resolve, onError: arrived.reject });
  const near = net.connect({ port, host: '127.0.0.1', allowHalfOpen: true }).on('error', () => {});
  const arrival = await arrived.promise;
  const { promise: closed, resolve } = Promise.withResolvers<void>();
  arrival.on('close', resolve);
  return {
    near,
    arrival,
    closed,
    async [Symbol.asyncDispose]() {
      near.destroy();
      arrival.close();
      await closed;
      server.close();
    },
  };
}

function heard(arrival: Arrival, isEnough = hasHello): Promise<boolean> {
  return new Promise((resolve) => arrival.hear(isEnough, resolve));
}

interface Looks {
  readonly hears: Promise<boolean>;
  readonly count: () => number;
  /** Resolves after the next one. */
  readonly next: () => Promise<unknown>;
}

/** Hears, and tells of each time that it is looked at what is there. */
function looks(arrival: Arrival, isEnough = hasHello): Looks {
  let count = 0;
  const looked = new EventEmitter();
  const hears = heard(arrival, (head) => {
    count += 1;
    setImmediate(() => looked.emit('look'));
    return isEnough(head);
  });
  return { hears, count: () => count, next: () => once(looked, 'look') };
}

for (const when of ['before', 'after'] as const) {
  test(`what a client says ${when} it is waited for is heard of, and stays with the kernel`, bounded, async () => {
    await using made = await pair();
    if (when === 'before') await new Promise((resolve) => made.near.write('hello', resolve));
    const hears = heard(made.arrival);
    if (when === 'after') made.near.write('hello');

    assert.equal(await hears, true);
    assert.equal(takeAll(made.arrival), 'hello');
  });
}

test('half a word is waited on for the rest, octet by octet, without a look at what is there', bounded, async () => {
  await using made = await pair();
  const { hears, count, next } = looks(made.arrival);
  for (const letter of 'hell') {
    const seen = next();
    made.near.write(letter);
    await seen;
    for (let turn = 0; turn < 10; turn++) await nextTurn();
  }
  assert.equal(count(), 4);
  made.near.write('o');

  assert.equal(await hears, true);
  assert.equal(takeAll(made.arrival), 'hello');
  // What follows is told of again as it comes.
  assert.equal(getOption(made.arrival.fd ?? -1, SO_RCVLOWAT), 1);
});

/** SO_RCVBUF of SOL_SOCKET. */
const LITTLE_ROOM = { level: 1, option: 8, bytes: 2_304 } as const;
const MSG_OOB = 1;

test(
  'half a word that leaves no room is waited on for the rest, though the kernel has us look again',
  bounded,
  async () => {
    await using made = await pair(LITTLE_ROOM);
    const { hears, next } = looks(made.arrival, (head) => head.length >= 2_060);
    const seen = next();
    made.near.setNoDelay().write(Buffer.alloc(2_000));
    await seen;
    for (let turn = 0; turn < 30; turn++) await nextTurn();
    made.near.write(Buffer.alloc(60));

    assert.equal(await hears, true);
    assert.equal(getOption(made.arrival.fd ?? -1, SO_RCVLOWAT), 1);
  },
);

test('a client that wakes us for nothing, for ever, is looked at now and then, until it ends', bounded, async () => {
  await using made = await pair();
  const { hears, count, next } = looks(made.arrival);
  const seen = next();
  made.near.write('hel');
  await seen;
  assert.equal(libc.send(socketFd(made.near) ?? -1, Buffer.from('!'), 1, MSG_OOB), 1);
  while (count() < 4) await next();
  const before = count();
  for (let turn = 0; turn < 1_000; turn++) await nextTurn();
  assert(count() - before < 100, `${count() - before} looks in 1,000 turns`);
  made.near.end();

  assert.equal(await hears, false);
});

test(
  'of what was heard a socket is made, paused, which gives back its descriptor like any other',
  bounded,
  async () => {
    await using made = await pair();
    made.near.write('hello');
    await heard(made.arrival);
    const socket = made.arrival.socket();

    assert.equal(made.arrival.socket(), socket);
    assert.equal(socketFd(socket), made.arrival.fd);
    assert.equal(socket.readableFlowing, false);
    assert.equal(socket.allowHalfOpen, true);
    made.near.resume();
    const isOver = once(made.near, 'close');
    socket.end('bye');
    await once(made.near, 'end');
    made.near.end();
    made.arrival.close();
    await Promise.all([isOver, made.closed]);
    assert.equal(socket.destroyed, true);
  },
);

test('both ends are known as long as there is a connection', bounded, async () => {
  await using made = await pair();
  const { localAddress: local, remoteAddress, remotePort } = made.arrival.ends;
  assert.deepEqual([local, remoteAddress, remotePort], ['127.0.0.1', '127.0.0.1', made.near.localPort]);
});

const SILENT_ENDS: readonly [string, (near: net.Socket) => void][] = [
  ['ends', (near) => near.end()],
  ['ends in the middle', (near) => near.end('hel')],
  ['resets', (near) => near.resetAndDestroy()],
];
for (const [what, end] of SILENT_ENDS) {
  test(`a client that ${what} before it has spoken is not waited for`, bounded, async () => {
    await using made = await pair();
    const hears = heard(made.arrival);
    end(made.near);

    assert.equal(await hears, false);
  });

  test(`a client that ${what} before it has spoken is not waited for by a socket either`, bounded, async () => {
    await using made = await tcpPair({ pauseOnConnect: true });
    const hears = heard(socketArrival(made.far.on('error', () => {})), () => true);
    end(made.near.on('error', () => {}));

    assert.equal(await hears, what === 'ends in the middle');
  });
}

test('who is cut by us is heard no more', bounded, async () => {
  await using made = await pair();
  let settled = 0;
  made.arrival.hear(hasHello, () => (settled += 1));
  const isOver = once(made.near.resume(), 'close');
  made.arrival.close();
  await made.closed;
  made.near.end('hello');
  await isOver;

  assert.equal(settled, 0);
});

function takeAll({ fd = -1 }: Arrival): string {
  const buffer = Buffer.alloc(16);
  return buffer.toString('latin1', 0, libc.recv(fd, buffer, buffer.length, 0));
}
