import assert from 'node:assert/strict';
import { test } from 'node:test';
import { identityOf, meshForFile } from '../../support/mesh.ts';
import { dial, doubling, naming } from '../../support/mesh-traffic.ts';
import { metricsOf } from '../../support/metric-text.ts';
import { skipWithoutRoot } from '../../support/netns.ts';

const privileged = { skip: skipWithoutRoot, timeout: 60_000 };
const mesh = meshForFile({ nodes: { n1: ['client', 'near'], n2: ['server'], n3: ['outside'] } });

test(
  'a client of another trust domain is refused in the handshake: its application sees a reset',
  privileged,
  async () => {
    await mesh().update({ workloads: mesh().workloads({ client: { trustDomain: 'clusterset.local' } }) });
    using _app = mesh().serve('server', 8001, doubling);
    using client = await dial(mesh(), 'client', { ip: mesh().pod('server').ip, port: 8001 });
    client.socket.write('hello');
    assert.equal(await client.ended(), 'reset');
    assert.equal(client.bytes, 0);
    const isTrustDomain = (line: Readonly<Record<string, unknown>>) => line['reason'] === 'CV-PEER-TRUST-DOMAIN';
    const inbound = await mesh().agent('n2').line(isTrustDomain, 'refusal by trust domain');
    assert.equal(inbound.message, 'connection failed');
    assert.match(
      String(inbound['error']),
      /identity verification error: .*cluster\.local.*spiffe:\/\/clusterset\.local\/ns\/demo\/sa\/client/,
    );
  },
);

test('a server that proves another identity than the mesh gives its address gets nothing', privileged, async () => {
  // The client believes that `server` runs as somebody else, so the agent of n2 proves the wrong name to it.
  await mesh().update({
    workloads: mesh().workloads({
      near: { workloadIps: [mesh().pod('server').ip] },
      server: { workloadIps: ['10.244.9.9'] },
    }),
  });
  let isReached = false;
  using _app = mesh().serve('server', 8002, () => (isReached = true));
  using client = await dial(mesh(), 'client', { ip: mesh().pod('server').ip, port: 8002 });
  client.socket.write('secret');
  assert.equal(await client.ended(), 'reset');
  const line = await mesh().agent('n1').access('outbound', { 'src.addr': client.address });
  assert.equal(line['reason'], 'CV-PEER-IDENTITY');
  assert.match(String(line['error']), new RegExp(`expected SAN .${identityOf('near')}.*got ${identityOf('server')}`));
  assert.equal(isReached, false);
});

test(
  'a captured pod that the mesh does not describe is refused after five seconds, with the way to mend it',
  privileged,
  async () => {
    await mesh().update({
      workloads: mesh()
        .workloads()
        .filter((record) => record['name'] !== 'near'),
    });
    using _app = mesh().serve('server', 8003, naming('server'));
    using client = await dial(mesh(), 'near', { ip: mesh().pod('server').ip, port: 8003 });
    const line = await mesh().agent('n1').access('outbound', { 'src.addr': client.address });
    assert.equal(line.message, 'connection failed');
    assert.equal(line['error'], 'failed to fetch information about local workload: near.demo (near)');
    assert.equal(line['reason'], 'CV-WORKLOAD-UNKNOWN');
    assert.equal(await client.ended(), 'reset');
    assert.equal(client.bytes, 0);
  },
);

test('a pod whose record arrives while it waits is served', privileged, async () => {
  await mesh().update({
    workloads: mesh()
      .workloads()
      .filter((record) => record['name'] !== 'near'),
  });
  using _app = mesh().serve('server', 8004, doubling);
  using client = await dial(mesh(), 'near', { ip: mesh().pod('server').ip, port: 8004 });
  client.socket.write('early');
  await mesh().update({});
  assert.equal(await client.atLeast(10), 'earlyearly');
});

test('certificates are fetched for the pods of the node, once each, and not for others', privileged, async () => {
  await mesh().update({});
  const metric = await metricsOf(mesh().agent('n2'));
  const has = (pod: string) => metric('culvert_certificate_expiry_seconds', { identity: identityOf(pod) }) > 0;
  assert.deepEqual(
    { server: has('server'), client: has('client'), near: has('near') },
    { server: true, client: false, near: false },
  );
  assert.equal(metric('culvert_certificate_renewals_total', { result: 'ok' }), 1);
});
