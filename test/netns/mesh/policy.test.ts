import assert from 'node:assert/strict';
import { test } from 'node:test';
import { identityOf, type MeshRecord, meshForFile } from '../../support/mesh.ts';
import { HboneClient, meshMaterial } from '../../support/mesh-hbone.ts';
import { ask, dial, doubling, naming } from '../../support/mesh-traffic.ts';
import { metricsOf } from '../../support/metric-text.ts';
import { skipWithoutRoot } from '../../support/netns.ts';

const privileged = { skip: skipWithoutRoot, timeout: 60_000 };
const mesh = meshForFile({ nodes: { n1: ['client', 'near'], n2: ['server'], n3: ['outside'] } });
const PREFIX = 'connection closed due to policy rejection: ';
const NONE_ALLOWED = `${PREFIX}allow policies exist, but none allowed`;

type Match = MeshRecord;

function policy(
  name: string,
  action: 'Allow' | 'Deny',
  matches: readonly Match[],
  fields: MeshRecord = {},
): MeshRecord {
  return { name, namespace: 'demo', scope: 'Namespace', action, dryRun: false, rules: [[matches]], ...fields };
}

function from(pod: string): Match {
  return { principals: [{ Exact: identityOf(pod).replace('spiffe://', '') }] };
}

function server(port: number) {
  return { ip: mesh().pod('server').ip, port };
}

test('an ALLOW policy for another identity: 401 between the agents, and both logs say why', privileged, async () => {
  await mesh().update({ policies: [policy('only-near', 'Allow', [from('near')])] });
  using _app = mesh().serve('server', 8001, naming('server'));
  using client = await dial(mesh(), 'client', server(8001));
  client.socket.write('hello');
  assert.equal(await client.ended(), 'reset');
  assert.equal(client.bytes, 0);
  const inbound = await mesh()
    .agent('n2')
    .access('inbound', { 'dst.hbone_addr': `${server(8001).ip}:8001` });
  assert.equal(inbound['error'], NONE_ALLOWED);
  assert.equal(inbound['reason'], 'CV-POLICY-NOT-ALLOWED');
  assert.equal(inbound['src.identity'], identityOf('client'));
  const outbound = await mesh().agent('n1').access('outbound', { 'src.addr': client.address });
  assert.equal(outbound['error'], 'http status: 401 Unauthorized');
  assert.equal(outbound['reason'], 'CV-CONNECT-DENIED');
});

test('the identity that the ALLOW policy names is served', privileged, async () => {
  await mesh().update({ policies: [policy('only-near', 'Allow', [from('near')])] });
  using _app = mesh().serve('server', 8002, naming('server'));
  assert.equal(await ask(mesh(), 'near', server(8002)), `server sees ${mesh().pod('near').ip}\n`);
});

test('a plaintext client has no identity and no ALLOW policy by identity lets it in', privileged, async () => {
  await mesh().update({ policies: [policy('only-near', 'Allow', [from('near')])] });
  using _app = mesh().serve('server', 8003, naming('server'));
  using client = await dial(mesh(), 'outside', server(8003));
  client.socket.write('hello');
  assert.equal(await client.ended(), 'reset');
  assert.equal(client.bytes, 0);
  const line = await mesh().agent('n2').access('inbound', { 'src.addr': client.address });
  assert.equal(line['error'], NONE_ALLOWED);
  assert.equal(line['src.identity'], undefined);
});

test('a DENY policy refuses by name and beats an ALLOW', privileged, async () => {
  await mesh().update({
    policies: [policy('all', 'Allow', [from('client')]), policy('not-8004', 'Deny', [{ destinationPorts: [8004] }])],
  });
  using _app = mesh().serve('server', 8004, naming('server'));
  using _other = mesh().serve('server', 8005, naming('server'));
  using client = await dial(mesh(), 'client', server(8004));
  assert.equal(await client.ended(), 'reset');
  assert.equal(client.bytes, 0);
  const line = await mesh()
    .agent('n2')
    .access('inbound', { 'dst.hbone_addr': `${server(8004).ip}:8004` });
  assert.equal(line['error'], `${PREFIX}explicitly denied by: demo/not-8004`);
  assert.equal(line['reason'], 'CV-POLICY-DENY');
  assert.match(await ask(mesh(), 'client', server(8005)), /^server sees/);
});

test('a refusal is counted as DENY by the destination, and by our reason code', privileged, async () => {
  await mesh().update({ policies: [policy('none', 'Deny', [{ destinationPorts: [8006] }])] });
  using client = await dial(mesh(), 'client', server(8006));
  assert.equal(await client.ended(), 'reset');
  await mesh()
    .agent('n2')
    .access('inbound', { 'dst.hbone_addr': `${server(8006).ip}:8006` });
  const metric = await metricsOf(mesh().agent('n2'));
  const labels = { reporter: 'destination', response_flags: 'DENY', source_principal: identityOf('client') };
  assert.ok(metric('istio_tcp_connections_closed_total', labels) >= 1);
  assert.ok(metric('culvert_refusals_total', { reason: 'CV-POLICY-DENY', layer: 'policy', direction: 'inbound' }) >= 1);
});

test('a dry-run DENY refuses nothing', privileged, async () => {
  await mesh().update({ policies: [policy('try', 'Deny', [{ destinationPorts: [8007] }], { dryRun: true })] });
  using _app = mesh().serve('server', 8007, naming('server'));
  assert.match(await ask(mesh(), 'client', server(8007)), /^server sees/);
});

test('strict mutual TLS, as istiod writes it, refuses plaintext and nothing else', privileged, async () => {
  const strict = policy('strict', 'Deny', [{ notPrincipals: [{ Presence: [] }] }], { scope: 'WorkloadSelector' });
  await mesh().update({
    policies: [strict],
    workloads: mesh().workloads({ server: { authorizationPolicies: ['demo/strict'] } }),
  });
  using _app = mesh().serve('server', 8008, naming('server'));
  assert.match(await ask(mesh(), 'client', server(8008)), /^server sees/);
  using plain = await dial(mesh(), 'outside', server(8008));
  assert.equal(await plain.ended(), 'reset');
  assert.equal(plain.bytes, 0);
});

test('the source address that a policy sees is the address of the client pod', privileged, async () => {
  const onlyClient = [{ sourceIps: [`${mesh().pod('client').ip}/32`] }];
  await mesh().update({ policies: [policy('by-address', 'Allow', onlyClient)] });
  using _app = mesh().serve('server', 8009, naming('server'));
  assert.match(await ask(mesh(), 'client', server(8009)), /^server sees/);
  using other = await dial(mesh(), 'near', server(8009));
  assert.equal(await other.ended(), 'reset');
  assert.equal(other.bytes, 0);
});

test(
  'a policy change cuts the live connections it forbids, and only those; taking it back lets new ones in',
  privileged,
  async () => {
    await mesh().update({});
    using _app = mesh().serve('server', 8010, doubling);
    using forbidden = await dial(mesh(), 'client', server(8010));
    using plain = await dial(mesh(), 'outside', server(8010));
    using allowed = await dial(mesh(), 'near', server(8010));
    for (const client of [forbidden, plain, allowed]) await client.exchange('hello');
    const seen = mesh().agent('n2').lines.length;

    await mesh().update({ policies: [policy('only-near', 'Allow', [from('near')])] });

    assert.equal(await forbidden.ended(), 'reset');
    assert.equal(await plain.ended(), 'reset');
    assert.equal(await allowed.exchange('still'), 'hellohellostillstill');
    const hbone = { 'dst.hbone_addr': `${server(8010).ip}:8010`, 'src.identity': identityOf('client') };
    for (const fields of [hbone, { 'src.addr': plain.address }]) {
      const line = await mesh().agent('n2').access('inbound', fields, seen);
      assert.equal(line['error'], 'connection closed due to policy change');
      assert.equal(line['reason'], 'CV-POLICY-CHANGED');
      assert.equal(line['bytes_recv'], 5);
    }
    const metric = await metricsOf(mesh().agent('n2'));
    assert.ok(metric('culvert_refusals_total', { reason: 'CV-POLICY-CHANGED' }) >= 2);

    await mesh().update({});
    using again = await dial(mesh(), 'client', server(8010));
    assert.equal(await again.exchange('hello'), 'hellohello');
  },
);

test('a connection cut by policy does not take its tunnel along', privileged, async () => {
  await mesh().update({});
  using _kept = mesh().serve('server', 8011, doubling);
  using _cut = mesh().serve('server', 8012, doubling);
  const material = await meshMaterial(mesh(), identityOf('client'));
  using tunnel = await HboneClient.open(mesh(), 'outside', {
    ip: server(0).ip,
    material,
    expected: [identityOf('server')],
  });
  const [kept, cut] = [await tunnel.connect(`${server(0).ip}:8011`), await tunnel.connect(`${server(0).ip}:8012`)];
  assert.deepEqual([kept.status, cut.status], [200, 200]);
  const ended = Promise.withResolvers<void>();
  const heard = Promise.withResolvers<string>();
  cut.stream.open({ onData() {}, onEnd() {}, onDrain() {}, onClose: () => ended.resolve() });
  kept.stream.open({ onData: (chunk) => heard.resolve(chunk.toString()), onEnd() {}, onDrain() {}, onClose() {} });

  await mesh().update({ policies: [policy('not-8012', 'Deny', [{ destinationPorts: [8012] }])] });

  await ended.promise;
  kept.stream.write(Buffer.from('hi'));
  await heard.promise;
  assert.equal(tunnel.session.isClosed, false);
});
