import assert from 'node:assert/strict';
import { once } from 'node:events';
import http2 from 'node:http2';
import net from 'node:net';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { TIMEOUTS } from '../../../src/agent/proxy-settings.ts';
import type { MeshError } from '../../../src/base/errors.ts';
import { EMPTY_MESH, type MeshState } from '../../../src/model/mesh-index.ts';
import { H2, PREFACE } from '../../../src/wire/h2-protocol.ts';
import { headersFrames, resetFrame, settingsFrame } from '../../../src/wire/h2-write.ts';
import { HpackEncoder } from '../../../src/wire/hpack-encoder.ts';
import { clientHello } from '../../support/client-hello.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { readToEnd } from '../../support/tcp.ts';
import { until } from '../../support/until.ts';
import { policy } from '../../unit/model/sample-mesh.ts';
import { Reader } from '../tunnel/h2-peers.ts';
import { handshake, OPEN_MESH, ProxyWorld, SERVER } from './proxy-world.ts';

const bounded = { timeout: 90_000 };
const CUT = 'tunnel closed for abuse';
/** Nobody reads what a peer sends after its fault; the socket is closed this much later. */
const CLOSED_MS = 1_000;
const CLOSED_MESH: MeshState = { ...OPEN_MESH, policies: [policy('nobody', { rules: [] })] };

/** A dial to an address of this machine is done in the next tick; nobody has looked at sockets until then. */
function nextTick(): Promise<void> {
  return new Promise((resolve) => process.nextTick(() => process.nextTick(resolve)));
}

/** Resolves when the other end closed the connection, in whatever way. */
async function ended(socket: net.Socket): Promise<void> {
  socket.resume().on('end', () => socket.destroy());
  if (!socket.destroyed) await new Promise((resolve) => socket.once('close', resolve));
}

/** Resolves when the application has sent `text` back. */
async function echoed(socket: net.Socket, text: string): Promise<void> {
  socket.write(text);
  const [chunk] = (await once(socket, 'data')) as [Buffer];
  assert.equal(chunk.toString(), text);
}

test('a tunnel over the limit is closed, not kept and forgotten', bounded, async () => {
  await using world = new ProxyWorld({ settings: { maxTunnels: 1 } });
  const { ip, port } = await world.app();
  const busy = await world.tunnel();
  await busy.session.request({ authority: `${ip}:${port}` }).response;

  await ended(await world.connect('hbone'));

  assert.equal((await world.line(({ message }) => message === 'connection failed')).fields['reason'], 'CV-LIMIT');
  assert.equal(busy.session.isClosed, false);
});

test('at the limit of tunnels an idle one makes room for a new one', bounded, async () => {
  await using world = new ProxyWorld({ settings: { maxTunnels: 1 } });
  const { ip, port } = await world.app();
  const idle = await world.tunnel();
  await until('the tunnel is counted', () => world.proxies.counts('p1')?.tunnelsIn === 1);

  const wanted = await world.tunnel();

  assert.equal((await wanted.session.request({ authority: `${ip}:${port}` }).response).status, 200);
  await idle.closed;
});

test('a handshake that made room for a newer one is refused for that, and says so', bounded, async () => {
  await using world = new ProxyWorld({ settings: { maxHandshakes: 1 } });
  const oldest = await world.connect('hbone');
  const silent = ended(oldest);

  await world.tunnel();

  await silent;
  const { fields } = await world.line(({ message }) => message === 'connection failed');
  assert.equal(fields['reason'], 'CV-LIMIT');
  assert.match(String(fields['error']), /1 handshakes in progress/);
});

test('of many silent connections from one address the oldest of its own makes room', bounded, async () => {
  await using world = new ProxyWorld();
  const oldest = await world.connect('hbone');
  const silent = ended(oldest);
  const others: net.Socket[] = [];
  for (let i = 0; i < 63; i++) others.push(await world.connect('hbone'));
  await until('64 handshakes are pending', () => world.proxies.usage()[0]?.pendingHandshakes === 64);
  assert.equal(oldest.destroyed, false);

  await world.tunnel();

  await silent;
  const { fields } = await world.line(({ message }) => message === 'connection failed');
  assert.equal(fields['reason'], 'CV-LIMIT');
  assert.match(String(fields['error']), /64 connections of this peer/);
  assert.deepEqual(
    others.filter(({ destroyed }) => destroyed),
    [],
  );
});

test('who was cut for abuse waits before its next handshake, and each time longer', bounded, async () => {
  const clock = new FakeClock();
  await using world = new ProxyWorld({ clock });
  const flood = Buffer.concat([PREFACE, ...Array.from({ length: 100 }, () => settingsFrame([]))]);
  let secured = await handshake(await world.connect('hbone'));
  for (const delayMs of [100, 200, 400]) {
    const mark = world.lines.length;
    secured.resume().write(flood);
    const cut = await world.line((line) => line.message === CUT && world.lines.indexOf(line) >= mark);
    assert.equal(cut.fields['delayMs'], delayMs);
    const next = handshake(await world.connect('hbone'));
    await until('the handshake is pending', () => world.proxies.usage()[0]?.pendingHandshakes !== 0);
    const { handshakes } = world.proxies.usage()[0] ?? assert.fail();
    clock.advance(delayMs - 1);
    for (let turns = 0; turns < 20; turns++) await nextTurn();
    assert.equal(world.proxies.usage()[0]?.handshakes, handshakes);
    clock.advance(1);
    secured = await next;
  }
  clock.advance(CLOSED_MS);
});

test('who fails one handshake after the other waits too', bounded, async () => {
  const clock = new FakeClock();
  await using world = new ProxyWorld({ clock });
  for (let i = 0; i < 8; i++) {
    const socket = await world.connect('hbone');
    socket.write('GET / HTTP/1.1\r\n\r\n');
    await ended(socket);
  }
  await until('eight have their line', () => world.ends.length >= 8);
  const next = handshake(await world.connect('hbone'));
  await until('the handshake is pending', () => world.proxies.usage()[0]?.pendingHandshakes !== 0);
  for (let turns = 0; turns < 20; turns++) await nextTurn();
  assert.equal(world.proxies.usage()[0]?.handshakes, 8);
  clock.advance(100);
  (await next).destroy();
});

test('who leaves its handshakes undone waits with the next, and is answered then', bounded, async () => {
  const clock = new FakeClock();
  await using world = new ProxyWorld({ clock });
  const hello = await clientHello();
  const greet = async (): Promise<net.Socket> => {
    const socket = await world.connect('hbone');
    socket.write(hello);
    return socket;
  };
  for (let i = 0; i < 8; i++) await once(await greet(), 'data');
  const ninth = await greet();
  const isAnswered = once(ninth, 'data');
  await until('9 handshakes are pending', () => world.proxies.usage()[0]?.pendingHandshakes === 9);
  clock.advance(99);
  for (let turns = 0; turns < 20; turns++) await nextTurn();
  assert.equal(world.proxies.usage()[0]?.handshakes, 8);
  assert.equal(ninth.bytesRead, 0);
  clock.advance(1);
  await isAnswered;
});

test('who greets at the last moment has half as long again for its handshake, and no longer', bounded, async () => {
  const clock = new FakeClock();
  await using world = new ProxyWorld({ clock });
  const { handshakeTimeoutMs } = TIMEOUTS;
  const socket = await world.connect('hbone');
  await until('it is accepted', () => world.proxies.usage()[0]?.pendingHandshakes === 1);
  clock.advance(handshakeTimeoutMs - 1);
  socket.write(await clientHello());
  await once(socket, 'data');
  clock.advance(handshakeTimeoutMs / 2 - 1);
  for (let turns = 0; turns < 20; turns++) await nextTurn();
  assert.deepEqual(world.ends, []);
  clock.advance(1);
  await ended(socket);
  const { fields } = await world.line(({ message }) => message === 'connection failed');
  assert.equal(fields['reason'], 'CV-TLS-TIMEOUT');
});

test('who comes to an end with its handshakes never waits, however many they are', bounded, async () => {
  await using world = new ProxyWorld({ clock: new FakeClock() });
  for (let i = 0; i < 40; i++) await world.tunnel();
  assert.equal(world.proxies.usage()[0]?.handshakes, 40);
});

test('a stream that is opened and reset in one go gets its line, and no verdict', bounded, async () => {
  await using world = new ProxyWorld();
  const { ip, port } = await world.app();
  const block = new HpackEncoder();
  block.field(':method', 'CONNECT');
  block.field(':authority', `${ip}:${port}`);
  const frames = [settingsFrame([]), headersFrames(1, block.finish(), false, 16_384), resetFrame(1, H2.cancel)];
  const secured = await handshake(await world.connect('hbone'));
  secured.resume().write(Buffer.concat([PREFACE, ...frames]));
  await world.line(({ message }) => message === 'connection failed' || message === 'connection complete');
  const { fields = {} } = world.ends[0] ?? {};
  assert.match(String(fields['error']), /the client gave up before it was answered/);
  assert.equal(fields['dst.workload'], undefined);
  assert.equal(world.dials, 0);
});

test('a connection that waits for an offence of its peer ends with its pod', bounded, async () => {
  const clock = new FakeClock();
  await using world = new ProxyWorld({ clock });
  const secured = await handshake(await world.connect('hbone'));
  secured.resume().write('not HTTP/2 at all, but long enough');
  await ended(secured);
  clock.advance(CLOSED_MS);
  const waiting = ended(await world.connect('hbone'));
  await until('the handshake is pending', () => world.proxies.usage()[0]?.pendingHandshakes !== 0);
  await world.stop('immediate');
  await waiting;
});

test('a graceful stop serves clients that the kernel has connected already', bounded, async () => {
  await using world = new ProxyWorld();
  world.target = await world.app();
  const clients = Array.from({ length: 20 }, () => world.dial('plaintext'));
  await nextTick();

  const stopped = world.stop('graceful');

  for (const client of clients) client.end('hello');
  const answers = await Promise.all(clients.map((client) => readToEnd(client).catch(() => 'reset')));
  assert.deepEqual(new Set(answers), new Set(['hello']));
  await stopped;
});

test(
  'a graceful stop serves the handshake that is in progress, and the stream that comes with it',
  bounded,
  async () => {
    await using world = new ProxyWorld();
    const { ip, port } = await world.app();
    const socket = await world.connect('hbone');
    await nextTurn();
    const stopped = world.stop('graceful');

    const peer = await world.tunnel(socket);
    const stream = peer.session.request({ authority: `${ip}:${port}` });
    assert.equal((await stream.response).status, 200);
    const reader = new Reader(stream);
    stream.write(Buffer.from('late'));
    await reader.until(4);
    stream.end();

    await stopped;
    assert.deepEqual(
      world.ends.map(({ fields }) => fields['error']),
      [undefined],
    );
  },
);

test('a graceful stop serves a stream that crosses its GOAWAY', bounded, async () => {
  await using world = new ProxyWorld();
  const { ip, port } = await world.app();
  const peer = await world.tunnel();
  await nextTurn();

  const stopped = world.stop('graceful');
  const stream = peer.session.request({ authority: `${ip}:${port}` });

  assert.equal((await stream.response).status, 200);
  stream.end();
  new Reader(stream);
  await stopped;
});

test('a graceful stop ends as soon as idle tunnels have said goodbye', bounded, async () => {
  await using world = new ProxyWorld();
  const peer = await world.tunnel();
  await world.stop('graceful');
  assert.equal(await peer.closed, undefined);
});

test('a graceful stop ends what is idle after half of its grace, and what is busy at its end', bounded, async () => {
  const clock = new FakeClock();
  await using world = new ProxyWorld({ clock, drainGraceMs: 10_000 });
  world.target = await world.app();
  const [idle, busy] = [await world.connect('plaintext'), await world.connect('plaintext')];
  for (const client of [idle, busy]) await echoed(client, 'before');

  const peer = await world.tunnel();

  const stopped = world.stop('graceful');
  await until('the peer hears GOAWAY', () => peer.goaways > 0);
  await echoed(busy, 'during');
  clock.advance(5_000);

  await ended(idle);
  await echoed(busy, 'still');
  clock.advance(5_000);
  await ended(busy);
  await stopped;
  assert.deepEqual(
    world.ends.map(({ fields }) => fields['error']),
    Array.from({ length: 2 }, () => 'connection closed due to connection drain'),
  );
});

for (const listener of ['plaintext', 'outbound'] as const) {
  test(
    `${listener}: a connection whose verdict is still waited for ends with its pod, on record`,
    bounded,
    async () => {
      await using world = new ProxyWorld({ mesh: EMPTY_MESH });
      world.target = await world.app();
      const client = ended(await world.connect(listener));
      await nextTurn();

      await world.stop('immediate');

      await client;
      assert.deepEqual(
        world.ends.map(({ fields }) => fields['reason']),
        ['CV-DRAIN'],
      );
      world.authority.replace(OPEN_MESH);
      await nextTurn();
      assert.equal(world.dials, 0, 'dialled for a pod that is gone');
      assert.equal(world.authority.trackedCount, 0);
    },
  );
}

test('connections whose verdict is waited for count against the limit', bounded, async () => {
  await using world = new ProxyWorld({ mesh: EMPTY_MESH, settings: { maxConnections: 1 } });
  await world.connect('plaintext');
  await ended(await world.connect('plaintext'));
  assert.equal((await world.line(({ message }) => message === 'connection failed')).fields['reason'], 'CV-LIMIT');
});

for (const listener of ['plaintext', 'outbound'] as const) {
  test(`${listener}: a defect ends its connection alone, and is logged`, bounded, async () => {
    await using world = new ProxyWorld({
      sys: {
        originalDestination: () => {
          throw new Error('a defect');
        },
      },
    });
    await ended(await world.connect(listener));
    const { fields } = await world.line(({ message }) => message === 'defect in a connection');
    assert.match(String(fields['stack']), /a defect/);
  });
}

test(
  'a connection that is forbidden while its application is dialled is cut, and is never answered',
  bounded,
  async () => {
    await using world = new ProxyWorld();
    const { ip, port } = await world.silent();
    const peer = await world.tunnel();
    const stream = peer.session.request({ authority: `${ip}:${port}` });
    const answer = stream.response.then(
      ({ status }) => status,
      (error: MeshError) => error.fields['h2Code'],
    );
    await until('the application is dialled', () => world.dials > 0);

    world.authority.replace(CLOSED_MESH);

    assert.equal(await answer, H2.connectError);
    assert.deepEqual(
      world.ends.map(({ fields }) => fields['reason']),
      ['CV-POLICY-CHANGED'],
    );
    assert.equal(world.authority.trackedCount, 0);
  },
);

test('a client that leaves while its destination is dialled leaves one line and no socket', bounded, async () => {
  await using world = new ProxyWorld();
  const { promise: accepted, resolve } = Promise.withResolvers<net.Socket>();
  world.target = await world.app(resolve);
  const client = await world.connect('plaintext');
  client.resetAndDestroy();

  const app = (await accepted).resume();

  await ended(app);
  await world.line(({ message }) => message === 'connection complete');
  assert.equal(world.ends.length, 1);
});

for (const listener of ['plaintext', 'outbound', 'hbone'] as const) {
  test(`${listener}: a client that reset before it was accepted has its line, with its address`, bounded, async () => {
    await using world = new ProxyWorld();
    world.target = await world.app((socket) => socket.resume());
    const ports: (number | undefined)[] = [];
    // Of so many at once some are reset before the listener has its turn.
    const clients = Array.from({ length: 50 }, () => world.dial(listener));
    for (const client of clients) {
      client.once('connect', () => {
        ports.push(client.localPort);
        client.resetAndDestroy();
      });
    }
    await Promise.all(clients.map((client) => once(client, 'close')));
    await world.line(() => world.ends.length === ports.length);
    const sources = new Set(world.ends.map(({ fields }) => fields['src.addr']));
    assert.deepEqual(sources, new Set(ports.map((port) => `127.0.0.1:${port}`)));
  });
}

test('raw bytes on 15008 are refused with a line and do no harm', bounded, async () => {
  await using world = new ProxyWorld();
  const socket = await world.connect('hbone');
  socket.write('GET / HTTP/1.1\r\n\r\n');
  await ended(socket);
  assert.equal(
    (await world.line(({ message }) => message === 'connection failed')).fields['reason'],
    'CV-TLS-HANDSHAKE',
  );
  const secured = await handshake(await world.connect('hbone'));
  secured.destroy();
  await once(secured, 'close');
});

test('the key of a certificate that was renewed or given up does not stay in memory', bounded, async () => {
  await using world = new ProxyWorld();
  await world.tunnel();
  assert.equal(world.contexts.size, 1);
  world.authority.certificateChanged(SERVER);
  assert.equal(world.contexts.size, 0);
});

test('of a method as long as a header may be little is kept, though its refusal is remembered', bounded, async () => {
  await using world = new ProxyWorld();
  const secured = await handshake(await world.connect('hbone'));
  const session = http2.connect('https://pod', { createConnection: () => secured });
  const request = session.request({ ':method': 'A'.repeat(14_000), ':path': '/' });
  const [headers] = (await once(request, 'response')) as [http2.IncomingHttpHeaders];
  assert.equal(headers[':status'], 400);
  const { fields } = await world.line(({ message }) => message === 'connection failed');
  assert.equal(fields['reason'], 'CV-METHOD');
  assert.match(String(fields['error']), /^expected method CONNECT, got A{300}$/);
  session.destroy();
});

test('a hundred requests that no peer of HBONE makes are answered, more of them end the tunnel', bounded, async () => {
  const clock = new FakeClock();
  await using world = new ProxyWorld({ clock });
  const { session, closed } = await world.tunnel();
  for (let i = 0; i < 100; i++) {
    assert.equal((await session.request({ authority: `user@${i}:80` }).response).status, 400);
  }
  const [told] = await Promise.allSettled([session.request({ authority: 'user@100:80' }).response]);
  assert.equal(told.status === 'fulfilled' ? told.value.status : 400, 400);
  const { fields } = await world.line(({ message }) => message === CUT);
  assert.match(String(fields['error']), /too many requests that are no CONNECT of HBONE/);
  clock.advance(CLOSED_MS);
  await closed;
});
