import assert from 'node:assert/strict';
import { test } from 'node:test';
import { identityOf, type MeshRecord, meshForFile } from '../../support/mesh.ts';
import { HboneClient, meshMaterial } from '../../support/mesh-hbone.ts';
import { ask, dial, doubling, naming, refused } from '../../support/mesh-traffic.ts';
import { metricsOf } from '../../support/metric-text.ts';
import { skipWithoutRoot } from '../../support/netns.ts';

const privileged = { skip: skipWithoutRoot, timeout: 60_000 };
const VIP = '10.96.0.10';
const HOSTNAME = 'web.demo.svc.cluster.local';
const KEY = `demo/${HOSTNAME}`;
const mesh = meshForFile({ nodes: { n1: ['client', 'near'], n2: ['far'], n3: ['outside'] } });

function web(fields: MeshRecord = {}): MeshRecord {
  return { name: 'web', namespace: 'demo', hostname: HOSTNAME, vips: [`/${VIP}`], ports: { 80: 8080 }, ...fields };
}

/** The service, and who its endpoints are: pod → port map, empty = the service's own target ports. */
function publish(endpoints: Readonly<Record<string, MeshRecord>>, fields: MeshRecord = {}): Promise<void> {
  const changes = Object.entries(endpoints).map(([pod, ports]) => [pod, { services: { [KEY]: ports } }]);
  return mesh().update({ services: [web(fields)], workloads: mesh().workloads(Object.fromEntries(changes)) });
}

test('one request to a service hits one endpoint, many hit those on both nodes', privileged, async () => {
  await publish({ near: { 80: 8080 }, far: { 80: 8080 } });
  using _near = mesh().serve('near', 8080, naming('near'));
  using _far = mesh().serve('far', 8080, naming('far'));
  const answers: string[] = [];
  for (let i = 0; i < 50; i++) answers.push(await ask(mesh(), 'client', { ip: VIP, port: 80 }));
  const { ip } = mesh().pod('client');
  for (const answer of answers) assert.match(answer, new RegExp(`^(near|far) sees ${ip}\n$`));
  // 2^-49 is the chance that a fair choice takes one of two fifty times.
  assert.equal(new Set(answers).size, 2);
});

test('the service is named in the logs and metrics of both sides', privileged, async () => {
  await publish({ far: { 80: 8080 } });
  using _far = mesh().serve('far', 8080, doubling);
  using client = await dial(mesh(), 'client', { ip: VIP, port: 80 });
  await client.exchange('hello world');
  client.socket.end();
  const outbound = await mesh().agent('n1').access('outbound', { 'src.addr': client.address });
  const inbound = await mesh().agent('n2').access('inbound', { 'dst.service': HOSTNAME });
  assert.equal(outbound['dst.service'], HOSTNAME);
  assert.equal(outbound['dst.hbone_addr'], `${mesh().pod('far').ip}:8080`);
  assert.equal(inbound['dst.hbone_addr'], `${mesh().pod('far').ip}:8080`);
  const labels = { destination_service: HOSTNAME, destination_service_name: 'web' };
  for (const [node, reporter] of [
    ['n1', 'source'],
    ['n2', 'destination'],
  ] as const) {
    const metric = await metricsOf(mesh().agent(node));
    assert.ok(metric('istio_tcp_connections_opened_total', { ...labels, reporter }) >= 1, reporter);
  }
});

test('a pod reaches itself through its own service, and sees its own address', privileged, async () => {
  await publish({ client: { 80: 8080 } });
  using _app = mesh().serve('client', 8080, naming('self'));
  const { ip } = mesh().pod('client');
  assert.equal(await ask(mesh(), 'client', { ip: VIP, port: 80 }), `self sees ${ip}\n`);
});

test('an uncaptured endpoint of a service is dialled in plaintext at its target port', privileged, async () => {
  await publish({ outside: { 80: 8080 } });
  using _app = mesh().serve('outside', 8080, naming('outside'));
  using client = await dial(mesh(), 'client', { ip: VIP, port: 80 });
  client.socket.end();
  await client.ended();
  assert.equal(client.text, `outside sees ${mesh().pod('client').ip}\n`);
  const line = await mesh().agent('n1').access('outbound', { 'src.addr': client.address });
  assert.equal(line['dst.addr'], `${mesh().pod('outside').ip}:8080`);
  assert.equal(line['dst.identity'], undefined);
});

test('an endpoint that is unhealthy is left out, and comes back when it is healthy', privileged, async () => {
  const both = (status: string) =>
    mesh().update({
      services: [web()],
      workloads: mesh().workloads({
        near: { services: { [KEY]: { 80: 8080 } }, status },
        far: { services: { [KEY]: { 80: 8080 } } },
      }),
    });
  using _near = mesh().serve('near', 8080, naming('near'));
  using _far = mesh().serve('far', 8080, naming('far'));
  const askMany = async (): Promise<string[]> => {
    const answers = new Set<string>();
    for (let i = 0; i < 40; i++) answers.add((await ask(mesh(), 'client', { ip: VIP, port: 80 })).slice(0, 4));
    return [...answers].sort();
  };
  await both('Unhealthy');
  assert.deepEqual(await askMany(), ['far ']);
  await both('Healthy');
  assert.deepEqual(await askMany(), ['far ', 'near']);
});

for (const [claim, endpoints, fields, port] of [
  ['a service without endpoints is refused, never dialled as it is', {}, {}, 80],
  ['a port that the service does not have is refused', { far: { 80: 8080 } }, {}, 81],
  ['a named port that the endpoint does not have is refused', { far: {} }, { ports: { 80: 0 } }, 80],
] as const) {
  test(claim, privileged, async () => {
    await publish(endpoints, fields);
    using _far = mesh().serve('far', 8080, naming('far'));
    using client = await dial(mesh(), 'client', { ip: VIP, port });
    client.socket.write('hello');
    assert.equal(await client.ended(), 'reset');
    assert.equal(client.bytes, 0);
    const line = await mesh().agent('n1').access('outbound', { 'src.addr': client.address });
    assert.equal(line.message, 'connection failed');
    assert.equal(line['error'], `no healthy upstream: ${VIP}:${port}`);
    assert.equal(line['reason'], 'CV-NO-ENDPOINT');
  });
}

test('a passthrough service is dialled at the address the application chose', privileged, async () => {
  const { ip } = mesh().pod('outside');
  await mesh().update({
    services: [web({ vips: [`/${ip}`], loadBalancer: { mode: 'Passthrough' } })],
    workloads: mesh()
      .workloads()
      .filter((record) => record['name'] !== 'outside'),
  });
  using _app = mesh().serve('outside', 80, naming('outside'));
  assert.equal(await ask(mesh(), 'client', { ip, port: 80 }), `outside sees ${mesh().pod('client').ip}\n`);
});

test('failover keeps traffic on the node of the client while an endpoint there is healthy', privileged, async () => {
  const loadBalancer = { mode: 'Failover', routingPreferences: ['Node'], healthPolicy: 'OnlyHealthy' };
  const set = (status: string) =>
    mesh().update({
      services: [web({ loadBalancer })],
      workloads: mesh().workloads({
        near: { services: { [KEY]: { 80: 8080 } }, status },
        far: { services: { [KEY]: { 80: 8080 } } },
      }),
    });
  using _near = mesh().serve('near', 8080, naming('near'));
  using _far = mesh().serve('far', 8080, naming('far'));
  await set('Healthy');
  for (let i = 0; i < 20; i++) assert.match(await ask(mesh(), 'client', { ip: VIP, port: 80 }), /^near/);
  await set('Unhealthy');
  for (let i = 0; i < 20; i++) assert.match(await ask(mesh(), 'client', { ip: VIP, port: 80 }), /^far/);
});

for (const [claim, ports, endpoint] of [
  ['a host name authority is served on the target port of the service', { 80: 8080 }, {}],
  ['a host name authority is served on the named port of this endpoint', { 80: 0 }, { 80: 8080 }],
] as const) {
  test(claim, privileged, async () => {
    await publish({ far: endpoint }, { ports });
    using _far = mesh().serve('far', 8080, naming('far'));
    using client = await openTunnel();
    assert.equal(await client.status(`${HOSTNAME}:80`), 200);
  });
}

test('a host name authority nobody knows, or without a port number here, is answered 503', privileged, async () => {
  await publish({ far: {} }, { ports: { 80: 0 } });
  using client = await openTunnel();
  assert.equal(await client.status(`${HOSTNAME}:80`), 503);
  assert.equal(await client.status('elsewhere.demo.svc.cluster.local:80'), 503);
});

test('a service taken away refuses new connections and leaves open ones alone', privileged, async () => {
  await publish({ far: { 80: 8080 } });
  using _far = mesh().serve('far', 8080, doubling);
  using client = await dial(mesh(), 'client', { ip: VIP, port: 80 });
  await client.exchange('before');
  await publish({});
  await refused(mesh(), 'client', { ip: VIP, port: 80 });
  assert.equal(await client.exchange('after'), 'beforebeforeafterafter');
});

async function openTunnel(): Promise<HboneClient> {
  const material = await meshMaterial(mesh(), identityOf('client'));
  return HboneClient.open(mesh(), 'outside', {
    ip: mesh().pod('far').ip,
    material,
    expected: [identityOf('far')],
  });
}
