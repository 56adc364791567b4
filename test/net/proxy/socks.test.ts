import assert from 'node:assert/strict';
import { once } from 'node:events';
import net from 'node:net';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { decode, encode } from 'dns-packet';
import type { HostPort } from '../../../src/base/ip.ts';
import { EMPTY_MESH, type MeshState } from '../../../src/model/mesh-index.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { type Script, TestNameserver } from '../../support/nameserver.ts';
import { service, vip, workload } from '../../unit/model/sample-mesh.ts';
import { ProxyWorld } from './proxy-world.ts';

const bounded = { timeout: 90_000 };
/** The captured pod is not 127.0.0.1: what listens there is unknown to the mesh, and dialled as it is. */
const MESH: MeshState = { ...EMPTY_MESH, workloads: [workload('server', { ips: ['127.0.0.2'] })] };
const GREETING = Buffer.from([5, 1, 0]);
const METHOD_NONE = '0500';
const reply = (code: number): string => `05${code.toString(16).padStart(2, '0')}0001000000000000`;

function byAddress({ ip, port }: HostPort): Buffer {
  return Buffer.from([5, 1, 0, 1, ...ip.split('.').map(Number), port >> 8, port & 0xff]);
}

function byName(name: string, port: number): Buffer {
  return Buffer.from([5, 1, 0, 3, name.length, ...Buffer.from(name), port >> 8, port & 0xff]);
}

/** Everything that comes until the end, as hex; a reset counts as an end. */
async function heard(socket: net.Socket): Promise<string> {
  const chunks: Buffer[] = [];
  socket.on('data', (chunk: Buffer) => chunks.push(chunk)).on('end', () => socket.destroy());
  if (!socket.destroyed) await new Promise((resolve) => socket.once('close', resolve));
  return Buffer.concat(chunks).toString('hex');
}

/** What a client that greets and sends `request`, which is refused, hears until its connection is reset. */
async function told(world: ProxyWorld, request: Buffer): Promise<string> {
  const client = await world.connect('socks');
  client.write(GREETING);
  client.write(request);
  const text = await heard(client);
  assert.equal(client.errored instanceof Error, true, 'a reset, after the reply');
  return text;
}

/** Settings of a proxy that asks `nameserver`. */
function dnsOf(nameserver: TestNameserver) {
  return {
    listen: { kind: 'address', address: { ip: '127.0.0.1', port: 0 } },
    nameservers: [nameserver.address],
    timeoutMs: 5_000,
    attempts: 1,
    maxQueries: 16,
    maxConnections: 16,
    connectionIdleMs: 5_000,
  } as const;
}

/** A nameserver that knows the addresses of every name, behind an alias. */
function answering(...addresses: readonly string[]): Script {
  return ({ bytes }) => {
    const { id = 0, questions = [] } = decode(bytes);
    const [{ name } = { name: '' }] = questions;
    const alias = { type: 'CNAME' as const, name, data: 'alias.example' };
    const records = addresses.map((data) => ({ type: 'A' as const, name: 'alias.example', data }));
    return encode({ type: 'response', id, questions, answers: [alias, ...records] });
  };
}

test(
  'a client that names an address is connected to it, and bytes behind its request are not lost',
  bounded,
  async () => {
    await using world = new ProxyWorld({ mesh: MESH });
    const client = await world.connect('socks');
    client.end(Buffer.concat([GREETING, byAddress(await world.app()), Buffer.from('early')]));
    assert.equal(await heard(client), METHOD_NONE + reply(0) + Buffer.from('early').toString('hex'));
    const { fields } = await world.line(({ message }) => message === 'connection complete');
    assert.deepEqual([fields['direction'], fields['bytes_sent'], fields['bytes_recv']], ['outbound', 5, 5]);
  },
);

test('a request that comes octet by octet is understood', bounded, async () => {
  await using world = new ProxyWorld({ mesh: MESH });
  const client = await world.connect('socks');
  client.setNoDelay(true);
  for (const octet of Buffer.concat([GREETING, byAddress(await world.app())])) {
    client.write(Buffer.of(octet));
    await nextTurn();
  }
  client.end('late');
  assert.equal(await heard(client), METHOD_NONE + reply(0) + Buffer.from('late').toString('hex'));
});

test('halves end on their own behind SOCKS too', bounded, async () => {
  await using world = new ProxyWorld({ mesh: MESH });
  const app = await world.app((socket) => {
    socket.on('end', () => socket.end('answer'));
    socket.resume();
  });
  const client = await world.connect('socks');
  client.end(Buffer.concat([GREETING, byAddress(app), Buffer.from('question')]));
  assert.equal(await heard(client), METHOD_NONE + reply(0) + Buffer.from('answer').toString('hex'));
});

test('a host name of the mesh is resolved as for the pod', bounded, async () => {
  await using nameserver = await TestNameserver.start();
  const mesh: MeshState = { ...MESH, services: [service('web', { vips: [vip('127.0.0.77')], ports: new Map() })] };
  await using world = new ProxyWorld({ mesh, settings: { dns: dnsOf(nameserver) } });
  // The service has no endpoint, so the connection is refused: by the name of the service, which is what counts here.
  assert.equal(await told(world, byName('web.default.svc.cluster.local', 80)), METHOD_NONE + reply(4));
  const { fields } = await world.line(({ message }) => message === 'connection failed');
  assert.equal(fields['error'], 'no healthy upstream: 127.0.0.77:80');
  assert.equal(nameserver.received.length, 0);
});

test('a host name of the world outside is resolved by the nameservers of the node', bounded, async () => {
  await using nameserver = await TestNameserver.start();
  nameserver.script = answering('127.0.0.1');
  await using world = new ProxyWorld({ mesh: MESH, settings: { dns: dnsOf(nameserver) } });
  const { port } = await world.app();
  const client = await world.connect('socks');
  client.end(Buffer.concat([GREETING, byName('app.example', port), Buffer.from('hello')]));
  assert.equal(await heard(client), METHOD_NONE + reply(0) + Buffer.from('hello').toString('hex'));
});

test('a host name without an address, or without anybody to ask, is unreachable', bounded, async () => {
  await using nameserver = await TestNameserver.start();
  nameserver.script = answering();
  await using world = new ProxyWorld({ mesh: MESH, settings: { dns: dnsOf(nameserver) } });
  assert.equal(await told(world, byName('nobody.example', 80)), METHOD_NONE + reply(4));
  await using without = new ProxyWorld({ mesh: MESH });
  assert.equal(await told(without, byName('nobody.example', 80)), METHOD_NONE + reply(4));
  for (const { lines } of [world, without]) {
    assert.equal(lines.find(({ message }) => message === 'connection failed')?.fields['reason'], 'CV-SOCKS-NAME');
  }
});

const refusals: readonly (readonly [name: string, heard: string, reason: string, said: Buffer])[] = [
  ['a client of version 4', '', 'CV-WIRE-MALFORMED', Buffer.from('0401005001010101', 'hex')],
  ['a client that speaks HTTP', '', 'CV-WIRE-MALFORMED', Buffer.from('GET / HTTP/1.1\r\n\r\n')],
  ['a client that insists on a password', '05ff', 'CV-SOCKS', Buffer.from([5, 1, 2])],
  [
    'a client that wants to be called',
    METHOD_NONE + reply(7),
    'CV-SOCKS',
    Buffer.from('05010005020001010101010050', 'hex'),
  ],
  [
    'a client that wants datagrams',
    METHOD_NONE + reply(7),
    'CV-SOCKS',
    Buffer.from('05010005030001010101010050', 'hex'),
  ],
  ['a request that cannot be', METHOD_NONE + reply(7), 'CV-WIRE-MALFORMED', Buffer.from('05010005010009', 'hex')],
];

for (const [name, wanted, reason, said] of refusals) {
  test(`${name} is told so, refused and on record`, bounded, async () => {
    await using world = new ProxyWorld({ mesh: MESH });
    const client = await world.connect('socks');
    client.write(said);
    assert.equal(await heard(client), wanted);
    const { fields } = await world.line(({ message }) => message === 'connection failed');
    assert.equal(fields['reason'], reason);
    assert.equal(world.ends.length, 1);
    assert.equal(world.dials, 0);
  });
}

test('a client that ends in the middle of its request is on record', bounded, async () => {
  await using world = new ProxyWorld({ mesh: MESH });
  const client = await world.connect('socks');
  client.end(Buffer.from([5, 1, 0, 5, 1]));
  assert.equal(await heard(client), METHOD_NONE + reply(1));
  assert.equal(
    (await world.line(({ message }) => message === 'connection failed')).fields['reason'],
    'CV-WIRE-TRUNCATED',
  );
});

test('a client that says nothing is given up', bounded, async () => {
  const clock = new FakeClock();
  await using world = new ProxyWorld({ mesh: MESH, clock });
  const client = await world.connect('socks');
  client.write(GREETING);
  await once(client, 'readable');
  clock.advance(10_000);
  await heard(client);
  assert.equal((await world.line(({ message }) => message === 'connection failed')).fields['reason'], 'CV-SOCKS');
});

test('clients that have not said what they want count against the limit', bounded, async () => {
  await using world = new ProxyWorld({ mesh: MESH, settings: { maxConnections: 1 } });
  const silent = await world.connect('socks');
  silent.write(GREETING);
  await once(silent, 'readable');
  assert.equal(await heard(await world.connect('socks')), '');
  assert.equal((await world.line(({ message }) => message === 'connection failed')).fields['reason'], 'CV-LIMIT');
});

test('a pod that leaves ends what is still being asked for', bounded, async () => {
  await using world = new ProxyWorld({ mesh: MESH });
  const client = await world.connect('socks');
  client.write(GREETING);
  await once(client, 'readable');
  await world.stop('immediate');
  await heard(client);
  assert.deepEqual(
    world.ends.map(({ fields }) => fields['reason']),
    ['CV-DRAIN'],
  );
});

test('the reply tells how the dial went, and why it was not made', bounded, async () => {
  await using world = new ProxyWorld({ mesh: MESH });
  const app = await world.app();
  const gone = net.createServer().listen(0, '127.0.0.1');
  await once(gone, 'listening');
  const { port } = gone.address() as net.AddressInfo;
  gone.close();
  assert.equal(await told(world, byAddress({ ip: '127.0.0.1', port })), METHOD_NONE + reply(5));
  assert.equal(await told(world, byAddress({ ip: '127.0.0.1', port: 15_001 })), METHOD_NONE + reply(2));
  const client = await world.connect('socks');
  client.end(Buffer.concat([GREETING, byAddress(app), Buffer.from('fine')]));
  assert.equal(await heard(client), METHOD_NONE + reply(0) + Buffer.from('fine').toString('hex'));
});

test(
  'the reply comes before the end also where a short cut leads to an application that refuses',
  bounded,
  async () => {
    await using world = new ProxyWorld({ isShortCutAccepted: true });
    const gone = net.createServer().listen(0, '127.0.0.1');
    await once(gone, 'listening');
    const { port } = gone.address() as net.AddressInfo;
    gone.close();
    assert.equal(await told(world, byAddress({ ip: '127.0.0.1', port })), METHOD_NONE + reply(1));
    await world.line(() => world.ends.length === 2);
    const reasons = new Set(world.ends.map(({ fields }) => fields['reason']));
    assert.deepEqual(reasons, new Set(['CV-APP-REFUSED', 'CV-CONNECT-FAILED']));
  },
);
