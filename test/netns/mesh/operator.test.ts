/** What an operator sees of a running node: the dump that tools of Istio read, our views of it, and the start of the log. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { schemaErrors } from '../../support/config-dump-schema.ts';
import { identityOf, meshForFile, uidOf } from '../../support/mesh.ts';
import { dial, doubling } from '../../support/mesh-traffic.ts';
import { skipWithoutRoot } from '../../support/netns.ts';
import { culvert } from '../../unit/cli/cli-fixture.ts';

const privileged = { skip: skipWithoutRoot, timeout: 60_000 };
const VIP = '10.96.0.10';
const HOSTNAME = 'web.demo.svc.cluster.local';

const mesh = meshForFile({
  nodes: { n1: ['client'], n2: ['server'] },
  env: { INPOD_ENABLED: 'true', ISTIO_META_ISTIO_VERSION: '1.31.0' },
  mesh: (lab) => ({
    services: [{ name: 'web', namespace: 'demo', hostname: HOSTNAME, vips: [`/${VIP}`], ports: { 80: 8080 } }],
    workloads: lab.workloads({ server: { services: { [`demo/${HOSTNAME}`]: { 80: 8080 } } } }),
  }),
});

for (const [node, pod, direction] of [
  ['n1', 'client', 'outbound'],
  ['n2', 'server', 'inbound'],
] as const) {
  test(
    `the dump of a node with ${direction} traffic keeps to the schema, holds the connection, and no key`,
    privileged,
    async () => {
      using _app = mesh().serve('server', 8080, doubling);
      using client = await dial(mesh(), 'client', { ip: VIP, port: 80 });
      await client.exchange('hello');
      const { body } = await mesh().agent(node).get('/config_dump');
      const dump = JSON.parse(body);
      assert.deepEqual(schemaErrors(dump), []);
      const [connection] = dump.workloadState[uidOf(pod)].connections[direction];
      assert.equal(connection.protocol, 'HBONE');
      const [{ identity, certChain }] = dump.certificates;
      assert.equal(identity, identityOf(pod));
      assert.match(Buffer.from(certChain[0].pem, 'base64').toString(), /^-----BEGIN CERTIFICATE-----/);
      assert(!body.includes(Buffer.from('-----BEGIN PRIVATE KEY').toString('base64').slice(0, 24)));
    },
  );
}

test('views of a saved dump show the mesh of the node', privileged, async () => {
  using _app = mesh().serve('server', 8080, doubling);
  using client = await dial(mesh(), 'client', { ip: VIP, port: 80 });
  await client.exchange('hello');
  const file = join(mesh().lab.folder, 'config_dump.json');
  writeFileSync(file, (await mesh().agent('n1').get('/config_dump')).body);
  const { code, out, err } = await culvert(['all', '--file', file, '--output', 'short']);
  assert.deepEqual([code, err], [0, '']);
  const server = mesh().pod('server').ip;
  const rows = out.split('\n').map((line) => line.replaceAll(/ {2,}/g, ' '));
  assert(rows.includes(`demo server ${server} n2 None HBONE`), out);
  assert(rows.includes(`demo web ${VIP} None 1/1`), out);
  const connection = rows.find((row) => row.startsWith('client.demo outbound'));
  assert.match(connection ?? '', new RegExp(`server\\.demo:15008 ${HOSTNAME}:80 HBONE$`));
});

test('the log begins with build, limits, settings and listeners, and names what changes nothing', privileged, () => {
  const { lines } = mesh().agent('n1');
  const [version, limit, config, ignored] = lines.map(({ message }) => message);
  assert.match(version ?? '', /^version: version\.BuildInfo\{Version:".*IstioVersion:"1\.31\.0"/);
  assert.match(limit ?? '', /^file descriptor limit is \d+$/);
  assert.match(config ?? '', /^running with config: \{"adminAddr"/);
  assert.equal(ignored, 'settings without effect here');
  const listeners = lines.filter(({ message }) => message === 'listener established');
  assert.deepEqual(new Set(listeners.map((line) => line['component'])), new Set(['readiness', 'stats', 'admin']));
});
