/** The same-node short cut: what it spares is the tunnel, and nothing of what the tunnel was for. */
import assert from 'node:assert/strict';
import type net from 'node:net';
import { test } from 'node:test';
import type { ConnectionsView, ExplainView } from '../../../src/agent/admin/views.ts';
import { identityOf, type MeshRecord, meshForFile, NAMESPACE } from '../../support/mesh.ts';
import { serveWaypoint } from '../../support/mesh-hbone.ts';
import { ask, Client, dial, doubling, naming } from '../../support/mesh-traffic.ts';
import { metricsOf } from '../../support/metric-text.ts';
import { skipWithoutRoot } from '../../support/netns.ts';

const privileged = { skip: skipWithoutRoot, timeout: 60_000 };
const ON = ['--same-node-short-cut', 'accept-no-network-policy'];
const VIP = '10.96.0.30';
/** The operator of `n1` has accepted it, the one of `n2` has not. */
const mesh = meshForFile({
  nodes: { n1: ['client', 'near', 'server'], n2: ['client2', 'server2'], n3: ['outside-way'] },
  nodeFlags: { n1: ON },
});

function to(pod: string, port: number) {
  return { ip: mesh().pod(pod).ip, port };
}

function only(pod: string): MeshRecord {
  const matches = [{ principals: [{ Exact: identityOf(pod).replace('spiffe://', '') }] }];
  return {
    name: `only-${pod}`,
    namespace: 'demo',
    scope: 'Namespace',
    action: 'Allow',
    dryRun: false,
    rules: [[matches]],
  };
}

/** Both lines of a connection of `client` to `port` of the pod `server`. */
async function linesOf(client: string, port: number, from = 0) {
  const agent = mesh().agent('n1');
  const outbound = await agent.access('outbound', { 'src.addr': client }, from);
  const inbound = await agent.access('inbound', { 'dst.addr': `${mesh().pod('server').ip}:${port}` }, from);
  return { outbound, inbound };
}

test('bytes pass both ways, each half ends by itself, and both logs name both identities', privileged, async () => {
  await mesh().update({});
  using _app = mesh().serve('server', 8001, doubling);
  using client = await dial(mesh(), 'client', to('server', 8001));
  client.socket.end('hello world');
  assert.equal(await client.ended(), 'end');
  assert.equal(client.text, 'hello worldhello world');

  const { outbound, inbound } = await linesOf(client.address, 8001);
  const common = {
    message: 'connection complete',
    'src.addr': client.address,
    'src.workload': 'client',
    'src.namespace': NAMESPACE,
    'src.identity': identityOf('client'),
    'dst.addr': `${mesh().pod('server').ip}:8001`,
    'dst.hbone_addr': undefined,
    'dst.workload': 'server',
    'dst.identity': identityOf('server'),
    error: undefined,
  };
  for (const line of [outbound, inbound]) {
    for (const [field, wanted] of Object.entries(common)) assert.equal(line[field], wanted, field);
  }
  assert.deepEqual([outbound['bytes_sent'], outbound['bytes_recv']], [11, 22]);
  assert.deepEqual([inbound['bytes_sent'], inbound['bytes_recv']], [22, 11]);
});

test('the application sees the address of the client pod', privileged, async () => {
  await mesh().update({});
  using _app = mesh().serve('server', 8002, naming('server'));
  assert.equal(await ask(mesh(), 'client', to('server', 8002)), `server sees ${mesh().pod('client').ip}\n`);
});

test('both reporters count the connection and its bytes, by a security policy of their own', privileged, async () => {
  await mesh().update({});
  const before = await metricsOf(mesh().agent('n1'));
  using _app = mesh().serve('server', 8003, doubling);
  using client = await dial(mesh(), 'client', to('server', 8003));
  await client.exchange('hello world');
  client.socket.end();
  await linesOf(client.address, 8003);
  const now = await metricsOf(mesh().agent('n1'));
  for (const reporter of ['source', 'destination']) {
    const labels = {
      reporter,
      source_principal: identityOf('client'),
      destination_workload: 'server-deployment',
      destination_principal: identityOf('server'),
      connection_security_policy: 'same_node',
      response_flags: '-',
    };
    const grown = (name: string): number => now(name, labels) - before(name, labels);
    assert.equal(grown('istio_tcp_received_bytes_total'), 11, `${reporter} received`);
    assert.equal(grown('istio_tcp_sent_bytes_total'), 22, `${reporter} sent`);
    assert.equal(grown('istio_tcp_connections_opened_total'), 1, `${reporter} opened`);
    assert.equal(grown('istio_tcp_connections_closed_total'), 1, `${reporter} closed`);
  }
});

test('both ends are listed while they are open, and each can be explained', privileged, async () => {
  await mesh().update({});
  using _app = mesh().serve('server', 8004, doubling);
  using client = await dial(mesh(), 'client', to('server', 8004));
  await client.exchange('hello');
  const agent = mesh().agent('n1');
  const { open } = JSON.parse((await agent.get('/connections')).body) as ConnectionsView;
  const ours = open.filter(({ src }) => src === client.address);
  assert.deepEqual(ours.map(({ direction, protocol }) => `${direction} ${protocol}`).toSorted(), [
    'inbound SAMENODE',
    'outbound SAMENODE',
  ]);
  for (const { id } of ours) {
    const { connection } = JSON.parse((await agent.get(`/explain?id=${id}`)).body) as ExplainView;
    assert.deepEqual([connection.clientBytes, connection.serverBytes], [5, 10]);
  }
});

test('32 MiB come back as they went, to a client that reads late', privileged, async () => {
  await mesh().update({});
  using _app = mesh().serve('server', 8005, (socket) => {
    socket.on('end', () => socket.end()).pipe(socket, { end: false });
  });
  using client = await dial(mesh(), 'client', to('server', 8005));
  const sent = Buffer.alloc(32 * 1024 * 1024, 'every byte has its place ');
  client.socket.pause();
  client.socket.end(sent);
  await mesh().agent('n1').get('/connections');
  client.socket.resume();
  assert.equal(await client.ended(), 'end');
  assert.equal(client.received.equals(sent), true);
});

test('a reset of either end reaches the other, and is no error', privileged, async () => {
  await mesh().update({});
  const accepted: net.Socket[] = [];
  using _app = mesh().serve('server', 8006, (socket) => {
    accepted.push(socket.on('error', () => {}));
    doubling(socket);
  });
  using client = await dial(mesh(), 'client', to('server', 8006));
  await client.exchange('hello');
  accepted[0]?.resetAndDestroy();
  assert.equal(await client.ended(), 'reset');
  const { outbound, inbound } = await linesOf(client.address, 8006);
  assert.deepEqual([outbound['error'], inbound['error']], [undefined, undefined]);
});

test('a policy of the destination refuses as through a tunnel: 401, and both logs say why', privileged, async () => {
  await mesh().update({ policies: [only('near')] });
  using _app = mesh().serve('server', 8007, naming('server'));
  using client = await dial(mesh(), 'client', to('server', 8007));
  assert.equal(await client.ended(), 'reset');
  assert.equal(client.bytes, 0);
  const { outbound, inbound } = await linesOf(client.address, 8007);
  assert.equal(inbound['reason'], 'CV-POLICY-NOT-ALLOWED');
  assert.equal(inbound['src.identity'], identityOf('client'));
  assert.equal(outbound['error'], 'http status: 401 Unauthorized');
  assert.equal(outbound['reason'], 'CV-CONNECT-DENIED');
  assert.equal(await ask(mesh(), 'near', to('server', 8007)), `server sees ${mesh().pod('near').ip}\n`);
});

test('a policy change cuts the live connections it forbids, and only those', privileged, async () => {
  await mesh().update({});
  using _app = mesh().serve('server', 8008, doubling);
  using forbidden = await dial(mesh(), 'client', to('server', 8008));
  using allowed = await dial(mesh(), 'near', to('server', 8008));
  for (const client of [forbidden, allowed]) await client.exchange('hello');
  const seen = mesh().agent('n1').lines.length;

  await mesh().update({ policies: [only('near')] });

  assert.equal(await forbidden.ended(), 'reset');
  assert.equal(await allowed.exchange('still'), 'hellohellostillstill');
  const { outbound, inbound } = await linesOf(forbidden.address, 8008, seen);
  assert.equal(inbound['reason'], 'CV-POLICY-CHANGED');
  assert.deepEqual([outbound['error'], outbound['bytes_sent']], [undefined, 5]);
});

test('an application that does not listen refuses the client, and both logs say so', privileged, async () => {
  await mesh().update({});
  using client = await dial(mesh(), 'client', to('server', 8009));
  assert.equal(await client.ended(), 'reset');
  assert.equal(client.bytes, 0);
  const { outbound, inbound } = await linesOf(client.address, 8009);
  assert.equal(inbound['reason'], 'CV-APP-REFUSED');
  assert.equal(outbound['error'], 'http status: 503 Service Unavailable');
});

test('a service leads to its pod of this node in the same way', privileged, async () => {
  const hostname = 'web.demo.svc.cluster.local';
  await mesh().update({
    services: [{ name: 'web', namespace: 'demo', hostname, vips: [`/${VIP}`], ports: { 80: 8010 } }],
    workloads: mesh().workloads({ server: { services: { [`demo/${hostname}`]: { 80: 8010 } } } }),
  });
  using _app = mesh().serve('server', 8010, naming('server'));
  using client = await dial(mesh(), 'client', { ip: VIP, port: 80 });
  client.socket.end();
  assert.equal(await client.ended(), 'end');
  assert.equal(client.text, `server sees ${mesh().pod('client').ip}\n`);
  const { outbound, inbound } = await linesOf(client.address, 8010);
  assert.deepEqual([outbound['dst.service'], inbound['dst.service']], [hostname, hostname]);
});

test(
  'a PROXY tunnel of the destination is told source, destination and identity before the data',
  privileged,
  async () => {
    await mesh().update({
      workloads: mesh().workloads({ server: { applicationTunnel: { protocol: 'PROXY', port: 15_088 } } }),
    });
    const { promise: accepted, resolve } = Promise.withResolvers<net.Socket>();
    using _app = mesh().serve('server', 15_088, resolve);
    using client = await dial(mesh(), 'client', to('server', 8011));
    client.socket.write('GET /');
    using server = new Client(await accepted);
    const identity = identityOf('client');
    const header = 16 + 12 + 3 + identity.length;
    await server.atLeast(header + 'GET /'.length);
    assert.equal(server.received.subarray(31, header).toString(), identity);
    assert.equal([...server.received.subarray(16, 20)].join('.'), mesh().pod('client').ip);
    assert.equal(server.received.subarray(header).toString(), 'GET /');
  },
);

test('a waypoint in front of the destination is never cut short', privileged, async () => {
  const waypoint = { destination: `/${mesh().pod('outside-way').ip}`, hboneMtlsPort: 15_008 };
  await mesh().update({ workloads: mesh().workloads({ server: { waypoint } }) });
  using _waypoint = await serveWaypoint(mesh(), 'outside-way', identityOf('outside-way'));
  using _app = mesh().serve('server', 8012, naming('server'));
  using client = await dial(mesh(), 'client', to('server', 8012));
  client.socket.end('hello');
  await client.ended();
  assert.equal(client.text, 'waypoint\nhellohello');
});

test('an address that is not the pod’s own is not dialled in clear, whatever its record says', privileged, async () => {
  const { ip } = mesh().pod('outside-way');
  await mesh().update({
    workloads: mesh().workloads({ server: { workloadIps: [ip] }, 'outside-way': { workloadIps: ['10.99.0.1'] } }),
  });
  let called = 0;
  using _app = mesh().serve('outside-way', 8013, () => void called++);
  using client = await dial(mesh(), 'client', { ip, port: 8013 });
  assert.equal(await client.ended(), 'reset');
  const line = await mesh().agent('n1').access('outbound', { 'src.addr': client.address });
  assert.equal(line['dst.addr'], `${ip}:15008`);
  assert.equal(line['reason'], 'CV-TUNNEL-REFUSED');
  assert.equal(called, 0);
});

test('without the word of the operator pods of one node talk through HBONE', privileged, async () => {
  await mesh().update({});
  using _app = mesh().serve('server2', 8014, naming('server2'));
  using client = await dial(mesh(), 'client2', to('server2', 8014));
  client.socket.end();
  assert.equal(await client.ended(), 'end');
  const line = await mesh().agent('n2').access('outbound', { 'src.addr': client.address });
  assert.equal(line['dst.addr'], `${mesh().pod('server2').ip}:15008`);
});

test('a pod that leaves the mesh ends its short cuts', privileged, async () => {
  await mesh().update({});
  using _app = mesh().serve('server', 8015, doubling);
  using client = await dial(mesh(), 'near', to('server', 8015));
  await client.exchange('hello');
  mesh().enrol(['client', 'server', 'client2', 'server2']);
  assert.equal(await client.ended(), 'reset');
  const { outbound, inbound } = await linesOf(client.address, 8015);
  assert.equal(outbound['reason'], 'CV-DRAIN');
  assert.equal(inbound['error'], undefined);
  const mark = mesh().agent('n1').lines.length;
  mesh().enrol(['client', 'near', 'server', 'client2', 'server2']);
  await mesh().captured('near', mesh().agent('n1'), mark);
});
