import assert from 'node:assert/strict';
import { once } from 'node:events';
import net from 'node:net';
import { test } from 'node:test';
import type { Budget } from '../../../src/model/budget.ts';
import { atAddress, workload } from '../../unit/model/sample-mesh.ts';
import { OPEN_MESH, ProxyWorld, proxySettingsOfTests } from './proxy-world.ts';

const bounded = { timeout: 60_000 };
const STANDARD = proxySettingsOfTests.budget;

function world(change: Partial<Budget>): ProxyWorld {
  return new ProxyWorld({ settings: { budget: { ...STANDARD, ...change } } });
}

async function echoed(socket: net.Socket): Promise<void> {
  socket.write('x');
  await once(socket, 'data');
}

async function reasonOfFailure(made: ProxyWorld): Promise<unknown> {
  return (await made.line(({ message }) => message === 'connection failed')).fields['reason'];
}

test('a connection over the budget is refused after a while, one that is within it is carried', bounded, async () => {
  await using made = world({ connections: 1 });
  made.target = await made.app();
  const first = await made.connect('plaintext');
  await echoed(first);
  await made.connect('plaintext');
  assert.equal(await reasonOfFailure(made), 'CV-BUDGET-CONNECTIONS');
  await echoed(first);
});

test('a connection over the budget begins as soon as another ends', bounded, async () => {
  await using made = world({ connections: 1 });
  made.target = await made.app();
  const first = await made.connect('plaintext');
  await echoed(first);
  const second = await made.connect('plaintext');
  first.destroy();
  await echoed(second);
});

test('a budget of the pod holds instead of the standard one, from the moment it is told', bounded, async () => {
  await using made = world({ connections: 1 });
  made.target = await made.app();
  await echoed(await made.connect('plaintext'));
  const second = await made.connect('plaintext');
  made.proxies.setBudgets({ standard: { ...STANDARD, connections: 1 }, byPod: [['p1', STANDARD]] });
  await echoed(second);
  made.proxies.setBudgets({ standard: { ...STANDARD, connections: 1 }, byPod: [] });
  await made.connect('plaintext');
  assert.equal(await reasonOfFailure(made), 'CV-BUDGET-CONNECTIONS');
});

test('handshakes over the budget are refused before any TLS', bounded, async () => {
  await using made = world({ handshakesPerSecond: 1 });
  await made.tunnel();
  const peers = await Promise.all([1, 2, 3, 4].map(() => made.connect('hbone')));
  for (const peer of peers) peer.write('anything');
  const { fields } = await made.line(({ fields: { reason } }) => reason === 'CV-BUDGET-HANDSHAKES');
  assert.match(String(fields['error']), /1 handshakes a second/);
});

test('a tunnel whose handshake is over the budget leaves no socket open', bounded, async () => {
  const accepted = Promise.withResolvers<net.Socket>();
  const server = net.createServer((socket) => accepted.resolve(socket.on('error', () => {}).resume()));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as net.AddressInfo;
  const waypoint = workload('waypoint', { ips: ['127.0.0.1'] });
  const far = workload('far', { ips: ['10.0.0.9'], waypoint: atAddress('127.0.0.1', { hbonePort: port }) });
  const own = workload('server', { ips: ['127.0.0.2'] });
  await using made = new ProxyWorld({
    mesh: { ...OPEN_MESH, workloads: [own, waypoint, far] },
    settings: { budget: { ...STANDARD, handshakesPerSecond: 0 } },
  });
  made.target = { ip: '10.0.0.9', port: 80 };
  await made.connect('outbound');
  const socket = await accepted.promise;
  if (!socket.closed) await once(socket, 'close');
  server.close();
  const { fields } = await made.line(({ message }) => message === 'connection complete');
  assert.equal(fields['reason'], 'CV-BUDGET-HANDSHAKES');
});

test('a CONNECT over the budget is answered 503', bounded, async () => {
  await using made = world({ connections: 1 });
  const { ip, port } = await made.app();
  const { session } = await made.tunnel();
  const authority = `${ip}:${port}`;
  assert.equal((await session.request({ authority }).response).status, 200);
  assert.equal((await session.request({ authority }).response).status, 503);
});
