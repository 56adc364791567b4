import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, readFileSync } from 'node:fs';
import type net from 'node:net';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { descriptorsOf, type InheritedConnection, type InheritedListener } from '../../../src/proxy/inheritance.ts';
import { closeFd } from '../../../src/sys/duplicate.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { metricSum } from '../../support/metric-text.ts';
import { fillUntilBlocked } from '../../support/tcp.ts';
import { until } from '../../support/until.ts';
import { policy } from '../../unit/model/sample-mesh.ts';
import { OPEN_MESH, ProxyWorld } from './proxy-world.ts';

const bounded = { timeout: 90_000 };

/** A plaintext connection into the pod, to the target of now, relayed. */
async function opened(world: ProxyWorld): Promise<net.Socket> {
  const client = await world.connect('plaintext');
  await echoed(client, 'before');
  return client;
}

async function echoed(client: net.Socket, text: string): Promise<void> {
  client.write(text);
  assert.equal(await bytes(client, text.length), text);
}

/** The next bytes, which must be so many. */
async function bytes(client: net.Socket, count: number): Promise<string> {
  let got = '';
  while (got.length < count) got += ((await once(client, 'data')) as [Buffer])[0].toString('latin1');
  return got;
}

/** Stops the listeners of `world`; they are nobody's from then on. */
async function leave({ proxy }: ProxyWorld): Promise<void> {
  for (const { fd } of await proxy.leaveListeners()) closeFd(fd);
}

/** All that moves, in parts. */
async function parts({ proxy }: ProxyWorld): Promise<(readonly InheritedConnection[])[]> {
  const all: (readonly InheritedConnection[])[] = [];
  for (let isLast = false; !isLast; ) {
    const part = await proxy.moveSome();
    all.push(part.connections);
    ({ isLast } = part);
  }
  return all;
}

async function moveAll(from: ProxyWorld, to: ProxyWorld): Promise<void> {
  await leave(from);
  for (const part of await parts(from)) await to.proxy.adopt(part);
}

function closeAll(connections: readonly InheritedConnection[]): void {
  for (const fd of descriptorsOf({ listeners: [], connections })) closeFd(fd);
}

/** Sums over the processes of a node. */
async function summed(worlds: readonly ProxyWorld[], name: string, labels = {}): Promise<number> {
  const pages = await Promise.all(worlds.map(({ metrics }) => metrics.render()));
  return pages.reduce((sum, page) => sum + metricSum(page, name, labels), 0);
}

test('many connections leave a few at a time, and each goes on elsewhere', bounded, async () => {
  await using giver = new ProxyWorld();
  await using heir = new ProxyWorld();
  giver.target = await giver.app();
  const clients = await Promise.all(Array.from({ length: 150 }, () => opened(giver)));
  await leave(giver);

  const left = await parts(giver);

  assert.equal(left.flat().length, 150);
  assert.ok(left.length > 3 && left.every((part) => part.length <= 64), left.map((part) => part.length).join());
  for (const part of left) await heir.proxy.adopt(part);
  await Promise.all(clients.map((client) => echoed(client, 'after')));
  assert.equal(giver.ends.length, 0);
});

test(
  'a connection whose reader is stuck flows on here while the others leave, and leaves once it is read',
  bounded,
  async () => {
    await using giver = new ProxyWorld();
    giver.target = await giver.app((socket) => socket.pause());
    const stuck = await giver.connect('plaintext');
    await fillUntilBlocked(stuck);
    let reader: net.Socket | undefined;
    giver.target = await giver.app((socket) => (reader = socket.pause()));
    const slow = await giver.connect('plaintext');
    await fillUntilBlocked(slow);
    giver.target = await giver.app();
    await Promise.all(Array.from({ length: 3 }, () => opened(giver)));
    await leave(giver);

    const first = await giver.proxy.moveSome();

    assert.deepEqual([first.connections.length, first.isLast], [3, false]);
    assert.equal(giver.proxies.counts('p1')?.connections, 2);
    // It takes what was read for it, so all of it is on its way.
    reader?.resume();
    slow.end();
    if (reader !== undefined) await once(reader, 'end');
    const last = await giver.proxy.moveSome();
    assert.ok(last.isLast);
    assert.equal(last.connections.length, 1);
    assert.equal(giver.proxies.counts('p1')?.connections, 1);
    closeAll([...first.connections, ...last.connections]);
  },
);

test(
  'nobody stands still while an upstream is dialled, and that connection leaves when it is there',
  bounded,
  async () => {
    await using giver = new ProxyWorld();
    await using heir = new ProxyWorld();
    giver.target = await giver.app();
    const flowing = await opened(giver);
    giver.target = await giver.silent();
    await giver.connect('plaintext');
    await until('both are counted', () => giver.proxies.counts('p1')?.connections === 2);
    await leave(giver);
    const first = await giver.proxy.moveSome();
    await heir.proxy.adopt(first.connections);

    const rest = parts(giver);
    await echoed(flowing, 'meanwhile');

    assert.deepEqual((await rest).flat(), []);
    assert.equal(giver.proxies.counts('p1')?.connections, 1);
  },
);

test(
  'whoever asks for connections hears soon that one is waited for, and may ask for other pods',
  bounded,
  async () => {
    const clock = new FakeClock();
    await using giver = new ProxyWorld({ clock });
    giver.target = await giver.silent();
    await giver.connect('plaintext');
    await until('it is counted', () => giver.proxies.counts('p1')?.connections === 1);
    await leave(giver);

    const answer = giver.proxy.moveSome();
    await pass(clock, 40);

    assert.deepEqual(await answer, { connections: [], isLast: false });
    clock.advance(250);
    assert.deepEqual(await giver.proxy.moveSome(), { connections: [], isLast: true });
  },
);

test('what has stayed is not stopped again while other threads still have some that leave', bounded, async () => {
  const clock = new FakeClock();
  await using giver = new ProxyWorld({ clock });
  giver.target = await giver.app((socket) => socket.pause());
  await fillUntilBlocked(await giver.connect('plaintext'));
  await leave(giver);
  const last = parts(giver);
  await pass(clock, 200);
  assert.deepEqual((await last).flat(), []);
  assert.equal(giver.proxies.counts('p1')?.connections, 1);

  // Without a wait for its reader: time stands still.
  assert.deepEqual(await giver.proxy.moveSome(), { connections: [], isLast: true });
});

/** In steps, between which whoever waits goes on. */
async function pass(clock: FakeClock, ms: number): Promise<void> {
  for (let passed = 0; passed < ms; passed++) {
    await nextTurn();
    clock.advance(1);
  }
  await nextTurn();
}

test(
  'a connection that the mesh of the next process forbids is closed there for that, and the others live',
  bounded,
  async () => {
    await using giver = new ProxyWorld();
    giver.target = await giver.app();
    const forbidden = await opened(giver);
    const { port } = giver.target;
    giver.target = await giver.app();
    const allowed = await opened(giver);
    const denied = policy('deny-one', { action: 'Deny', rules: [[[{ destinationPorts: [port] }]]] });
    await using heir = new ProxyWorld({ mesh: { ...OPEN_MESH, policies: [denied] } });
    const closed = new Promise((resolve) => forbidden.once('close', resolve));

    await moveAll(giver, heir);

    await closed;
    await echoed(allowed, 'after');
    const { fields } = await heir.line(({ message }) => message === 'connection complete');
    assert.deepEqual([fields['reason'], fields['bytes_recv'], fields['bytes_sent']], ['CV-POLICY-CHANGED', 6, 6]);
    assert.equal(giver.ends.length + heir.ends.length, 1);
  },
);

test(
  'over both processes a connection that moved is opened once, closed once, and each byte counts once',
  bounded,
  async () => {
    await using giver = new ProxyWorld();
    await using heir = new ProxyWorld();
    giver.target = await giver.app();
    const clients = await Promise.all(Array.from({ length: 3 }, () => opened(giver)));
    await moveAll(giver, heir);
    await Promise.all(clients.map((client) => echoed(client, 'after')));
    const both = [giver, heir];

    assert.equal(await summed(both, 'istio_tcp_connections_opened_total'), 3);
    assert.equal(await summed(both, 'istio_tcp_connections_closed_total'), 0);
    for (const client of clients) client.end();
    await heir.line(() => heir.ends.length === 3);
    assert.equal(await summed(both, 'istio_tcp_connections_opened_total'), 3);
    assert.equal(await summed(both, 'istio_tcp_connections_closed_total'), 3);
    assert.equal(await summed(both, 'istio_tcp_received_bytes_total'), 3 * 'beforeafter'.length);
    assert.equal(await summed(both, 'istio_tcp_sent_bytes_total'), 3 * 'beforeafter'.length);
    const moves = 'culvert_hand_over_connections_total';
    assert.equal(await summed([giver], moves, { fate: 'left', direction: 'inbound', protocol: 'TCP' }), 3);
    assert.equal(await summed([heir], moves, { fate: 'moved', direction: 'inbound', protocol: 'TCP' }), 3);
    assert.equal(await summed([heir], 'culvert_hand_over_pause_seconds_count'), 3);
    // One line each, where it ended, with the numbers of both.
    assert.equal(giver.ends.length, 0);
    for (const { fields } of heir.ends) assert.deepEqual([fields['bytes_recv'], fields['bytes_sent']], [11, 11]);
  },
);

test('what is said to keep a connection here keeps it here, and all others move', bounded, async () => {
  await using world = new ProxyWorld();
  world.target = await world.app();
  await opened(world);
  const { ip, port } = await world.app();
  const tunnel = await world.tunnel();
  await tunnel.session.request({ authority: `${ip}:${port}` }).response;
  world.target = await world.app((socket) => socket.pause());
  await fillUntilBlocked(await world.connect('plaintext'));
  world.target = await world.silent();
  await world.connect('plaintext');
  await until('four are on record', () => world.records.live().length >= 4);
  const said = obstaclesOf(world);
  assert.deepEqual([...said.values()], [undefined, 'tunnel', 'unread', 'dialling']);

  await leave(world);
  const moved = (await parts(world)).flat();

  assert.deepEqual(
    moved.map(({ start }) => said.get(start.id)),
    [undefined],
  );
  closeAll(moved);
});

/** Leaves this process without room for a descriptor until disposed. */
function outOfDescriptors(): Disposable {
  const limit = (open: string): void =>
    void execFileSync('prlimit', ['--pid', String(process.pid), `--nofile=${open}:`], { stdio: 'ignore' });
  const [, before = ''] = /Max open files +(\d+)/.exec(readFileSync('/proc/self/limits', 'utf8')) ?? [];
  limit('512');
  const fillers: number[] = [];
  try {
    for (;;) fillers.push(openSync('/dev/null', 'r'));
  } catch (error) {
    assert.match(String(error), /EMFILE/);
  }
  return {
    [Symbol.dispose]: () => {
      for (const fd of fillers) closeSync(fd);
      limit(before);
    },
  };
}

test(
  'a listener for which there is no descriptor is bound anew by the next process, and the others move',
  bounded,
  async () => {
    await using giver = new ProxyWorld();
    let listeners: readonly InheritedListener[];
    {
      using _full = outOfDescriptors();
      listeners = await giver.proxy.leaveListeners();
    }
    // The first makes room for the other three when it is closed.
    assert.equal(listeners.length, 3);
    await using heir = new ProxyWorld({ inherited: { listeners, connections: [] }, former: giver });
    heir.target = await heir.app();
    await Promise.all((['plaintext', 'outbound', 'hbone', 'socks'] as const).map((listener) => heir.connect(listener)));
    await opened(heir);
  },
);

test('connections that are to go for their memory go in the order of their idleness', bounded, async () => {
  const clock = new FakeClock();
  await using world = new ProxyWorld({ clock });
  world.target = await world.app();
  const clients: net.Socket[] = [];
  for (let i = 0; i < 3; i++) {
    clients.push(await opened(world));
    clock.advance(1_000);
  }
  const [first, second, third] = clients;
  assert.ok(first !== undefined && second !== undefined && third !== undefined);
  await echoed(first, 'still here');
  const closed = new Promise((resolve) => second.once('close', resolve));

  assert.equal(world.proxies.shed(1), 1);

  await closed;
  await echoed(first, 'one');
  await echoed(third, 'two');
  const { fields } = await world.line(({ message }) => message === 'connection complete');
  assert.equal(fields['reason'], 'CV-HOLD');
  const cut = { fate: 'cut', direction: 'inbound', protocol: 'TCP' };
  assert.equal(await summed([world], 'culvert_hand_over_connections_total', cut), 1);
});

function obstaclesOf({ proxies, records }: ProxyWorld): ReadonlyMap<string, string | undefined> {
  return new Map(proxies.withObstacles(records.live()).map(({ id, obstacle }) => [id, obstacle]));
}
