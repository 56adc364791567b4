import assert from 'node:assert/strict';
import type net from 'node:net';
import { test } from 'node:test';
import { Relay } from '../../../src/tunnel/relay.ts';
import { SocketStream } from '../../../src/tunnel/socket-stream.ts';
import { identityOf, type MeshDocument, type MeshRecord, meshForFile } from '../../support/mesh.ts';
import { serveWaypoint } from '../../support/mesh-hbone.ts';
import { ask, Client, dial, doubling, naming, refused } from '../../support/mesh-traffic.ts';
import { skipWithoutRoot } from '../../support/netns.ts';

const privileged = { skip: skipWithoutRoot, timeout: 60_000 };
const VIP = '10.96.0.30';
const WEB = 'web.demo.svc.cluster.local';
const NOBODY = { addClientBytes: () => {}, addServerBytes: () => {}, relayDone: () => {} };

/** Two networks with an agent each; `outside-gate` is the gateway of the eastern one, played by the test. */
const mesh = meshForFile({
  nodes: { n1: ['client'], n2: ['server'], n3: ['outside-gate', 'outside-way'] },
  nodeFlags: { n1: ['--network', 'west'], n2: ['--network', 'east'] },
});

/** What both agents know: `web` is served in the east only, and from the west `outside-gate` leads there. */
function networks(changes: { server?: MeshRecord; web?: MeshRecord; services?: readonly MeshRecord[] } = {}) {
  const networkGateway = { destination: `east/${mesh().pod('outside-gate').ip}`, hboneMtlsPort: 15_008 };
  const far = { network: 'east', networkGateway };
  const web = { name: 'web', namespace: 'demo', hostname: WEB, vips: [`west/${VIP}`, `east/${VIP}`] };
  return {
    workloads: mesh().workloads({
      client: { network: 'west' },
      server: { ...far, services: { [`demo/${WEB}`]: { 80: 8080 } }, ...changes.server },
      'outside-gate': { network: 'east', services: { 'demo/gate.demo.svc.cluster.local': { 15_009: 15_008 } } },
      'outside-way': { ...far, services: { 'demo/way.demo.svc.cluster.local': { 15_008: 15_008 } } },
    }),
    services: [
      { ...web, ports: { 80: 8080 }, subjectAltNames: [identityOf('server')], ...changes.web },
      ...(changes.services ?? []),
    ],
  } satisfies MeshDocument;
}

/** The gateway: ends the outer tunnel and hands what is inside to port 15008 of `to`. */
function serveGateway(to = 'server') {
  return serveWaypoint(mesh(), 'outside-gate', identityOf('outside-gate'), (stream) => {
    mesh()
      .dial('outside-gate', { ip: mesh().pod(to).ip, port: 15_008 })
      .then(
        (socket) => {
          stream.respond(200);
          new Relay(stream, new SocketStream(socket), NOBODY).start();
        },
        () => stream.respond(503, {}, { endStream: true }),
      );
  });
}

test(
  'a service of another network is reached through its gateway, and both agents know who talks',
  privileged,
  async () => {
    await mesh().update(networks());
    using gateway = await serveGateway();
    using _app = mesh().serve('server', 8080, doubling);
    using client = await dial(mesh(), 'client', { ip: VIP, port: 80 });
    client.socket.end('hello world');
    assert.equal(await client.ended(), 'end');
    assert.equal(client.text, 'hello worldhello world');

    const [connect] = gateway.seen;
    assert.equal(gateway.seen.length, 1);
    assert.equal(connect?.identity, identityOf('client'));
    assert.equal(connect?.request.authority, `${WEB}:80`);
    assert.equal(connect?.request.headers.has('x-forwarded-network'), false);
    const outbound = await mesh().agent('n1').access('outbound', { 'src.addr': client.address });
    const gate = mesh().pod('outside-gate').ip;
    assert.deepEqual(pick(outbound, ['dst.addr', 'dst.hbone_addr', 'dst.service', 'error']), [
      `${gate}:15008`,
      `${WEB}:80`,
      WEB,
      undefined,
    ]);
    // Told by the far end: by its certificate, and by the baggage of its answer.
    assert.deepEqual(pick(outbound, ['dst.workload', 'dst.namespace', 'dst.identity', 'bytes_sent', 'bytes_recv']), [
      'server-deployment',
      'demo',
      identityOf('server'),
      11,
      22,
    ]);
    const inbound = await mesh()
      .agent('n2')
      .access('inbound', { 'dst.hbone_addr': `${WEB}:80` });
    // The address is the gateway's; who it is comes from the certificate and the baggage inside.
    assert.equal(String(inbound['src.addr']).replace(/:\d+$/, ''), gate);
    assert.deepEqual(pick(inbound, ['src.workload', 'src.identity', 'dst.workload', 'dst.service', 'error']), [
      'client-deployment',
      identityOf('client'),
      'server',
      WEB,
      undefined,
    ]);
  },
);

test('the application of the other network sees its gateway', privileged, async () => {
  await mesh().update(networks());
  using _gateway = await serveGateway();
  using _app = mesh().serve('server', 8080, naming('server'));
  const gate = mesh().pod('outside-gate').ip;
  assert.equal(await ask(mesh(), 'client', { ip: VIP, port: 80 }), `server sees ${gate}\n`);
});

test('a gateway given by the host name of a service is found through it, on its target port', privileged, async () => {
  const gate = { name: 'gate', namespace: 'demo', hostname: 'gate.demo.svc.cluster.local', vips: [] };
  const networkGateway = { destination: 'demo/gate.demo.svc.cluster.local', hboneMtlsPort: 15_009 };
  await mesh().update(networks({ server: { networkGateway }, services: [{ ...gate, ports: { 15_009: 15_008 } }] }));
  using gateway = await serveGateway();
  using _app = mesh().serve('server', 8080, naming('server'));
  assert.match(await ask(mesh(), 'client', { ip: VIP, port: 80 }), /^server sees /);
  assert.equal(gateway.seen.length, 1);
});

test(
  'a waypoint of another network is reached through its gateway by the name of the service',
  privileged,
  async () => {
    const way = { name: 'way', namespace: 'demo', hostname: 'way.demo.svc.cluster.local', vips: [] };
    const waypoint = { destination: 'demo/way.demo.svc.cluster.local', hboneMtlsPort: 15_008 };
    const services = [{ ...way, ports: { 15_008: 15_008 }, subjectAltNames: [identityOf('outside-way')] }];
    await mesh().update(networks({ web: { waypoint }, services }));
    using _gateway = await serveGateway('outside-way');
    using inner = await serveWaypoint(mesh(), 'outside-way', identityOf('outside-way'));
    using client = await dial(mesh(), 'client', { ip: VIP, port: 80 });
    client.socket.end('hello');
    await client.ended();
    assert.equal(client.text, 'waypoint\nhellohello');
    const [connect] = inner.seen;
    assert.equal(connect?.identity, identityOf('client'));
    assert.equal(connect?.request.authority, `${WEB}:80`);
    assert.deepEqual(connect?.request.headers.get('x-forwarded-network'), ['west']);
  },
);

test(
  'a server for which the service does not vouch is not talked to, though its own record fits',
  privileged,
  async () => {
    await mesh().update(networks({ web: { subjectAltNames: [identityOf('client')] } }));
    using _gateway = await serveGateway();
    using client = await dial(mesh(), 'client', { ip: VIP, port: 80 });
    client.socket.end('secret');
    assert.equal(await client.ended(), 'reset');
    assert.equal(client.bytes, 0);
    const line = await mesh().agent('n1').access('outbound', { 'src.addr': client.address });
    assert.equal(line['reason'], 'CV-PEER-IDENTITY');
    assert.match(String(line['error']), /expected SAN .*client.*got .*server/);
  },
);

const GATE = { name: 'gate', namespace: 'demo', hostname: 'gate.demo.svc.cluster.local', vips: [], ports: {} };
const toNowhere = { networkGateway: { destination: 'demo/gate.demo.svc.cluster.local', hboneMtlsPort: 15_008 } };
const refusals = [
  ['a gateway of which nothing serves', { server: toNowhere, services: [GATE] }],
  ['no gateway at all', { server: { networkGateway: undefined } }],
  ['a service that names no identity', { web: { subjectAltNames: [] } }],
] as const;

for (const [name, changes] of refusals) {
  test(`another network with ${name}: refused, never reached in another way`, privileged, async () => {
    await mesh().update(networks(changes));
    using gateway = await serveGateway();
    using _app = mesh().serve('server', 8080, naming('server'));
    await refused(mesh(), 'client', { ip: VIP, port: 80 });
    assert.deepEqual(gateway.seen, []);
  });
}

test('halves and resets pass through both tunnels', privileged, async () => {
  await mesh().update(networks());
  using _gateway = await serveGateway();
  const accepted: net.Socket[] = [];
  const { promise: second, resolve } = Promise.withResolvers<void>();
  using _app = mesh().serve('server', 8080, (socket) => {
    if (accepted.push(socket) === 2) resolve();
  });

  using client = await dial(mesh(), 'client', { ip: VIP, port: 80 });
  client.socket.end('question');
  using other = await dial(mesh(), 'client', { ip: VIP, port: 80 });
  other.socket.write('half a quest');
  await second;
  const servers = accepted.map((socket) => new Client(socket));
  const [asked, cut] = await Promise.all(servers.map(async (server) => ({ server, text: await server.atLeast(8) })));
  const [first, last] = asked?.text === 'question' ? [asked, cut] : [cut, asked];

  assert.equal(await first?.server.ended(), 'end');
  first?.server.socket.end('answer');
  assert.equal(await client.ended(), 'end');
  assert.equal(client.text, 'answer');
  other.socket.resetAndDestroy();
  assert.equal(await last?.server.ended(), 'reset');
});

function pick(line: Readonly<Record<string, unknown>>, names: readonly string[]): unknown[] {
  return names.map((name) => line[name]);
}
