/** Endpoints of a service that are known by host name alone, looked up by the agent when a pod connects. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Answer } from 'dns-packet';
import { openNetns } from '../../../src/sys/netns.ts';
import { identityOf, type MeshRecord, meshForFile } from '../../support/mesh.ts';
import { ResolvConf } from '../../support/mesh-dns.ts';
import { ask, dial, naming } from '../../support/mesh-traffic.ts';
import { metricsOf } from '../../support/metric-text.ts';
import { answering, TestNameserver } from '../../support/nameserver.ts';
import { skipWithoutRoot } from '../../support/netns.ts';

const privileged = { skip: skipWithoutRoot, timeout: 60_000 };
const VIP = '10.96.0.20';
const KEY = 'demo/db.demo.svc.cluster.local';
const resolvConf = new ResolvConf();
const mesh = meshForFile({
  nodes: { n1: ['client'], n2: ['server'], n3: ['outside'] },
  // On loopback of the node: the agent asks in its own namespace, not in that of the pod.
  env: { CULVERT_RESOLV_CONF: resolvConf.path },
  beforeAgents: async () => resolvConf.write(['nameserver 127.0.0.1']),
});

/** A service whose only endpoint has a host name and no address. */
async function publish(hostname: string): Promise<void> {
  const endpoint: MeshRecord = {
    uid: `outside/${hostname}`,
    name: 'db',
    namespace: 'demo',
    workloadIps: [],
    hostname,
    services: { [KEY]: { 80: 8080 } },
  };
  const service = { name: 'db', namespace: 'demo', hostname: KEY.slice(5), vips: [`/${VIP}`], ports: { 80: 8080 } };
  await mesh().update({ services: [service], workloads: [...mesh().workloads(), endpoint] });
}

/** On the node of the client, answering each name with one address. */
async function nameserver(records: Readonly<Record<string, string>>): Promise<TestNameserver> {
  using netns = openNetns(mesh().lab.node('n1').inside.path);
  const server = await TestNameserver.start({ ip: '127.0.0.1', port: 53 }, netns);
  server.script = answering((type, name) => {
    const data = records[name];
    if (data === undefined) return { rcode: 3 };
    const answers: Answer[] = type === 'A' ? [{ type: 'A', name, data, ttl: 60 }] : [];
    return { answers };
  });
  return server;
}

test('an endpoint outside the mesh is reached by its name, and every connection is counted', privileged, async () => {
  await using _upstream = await nameserver({ 'db.example.test': mesh().pod('outside').ip });
  using _app = mesh().serve('outside', 8080, naming('outside'));
  await publish('db.example.test');
  for (let n = 0; n < 2; n++) {
    assert.equal(await ask(mesh(), 'client', { ip: VIP, port: 80 }), `outside sees ${mesh().pod('client').ip}\n`);
  }
  const metric = await metricsOf(mesh().agent('n1'));
  assert.equal(
    metric('istio_on_demand_dns_total', { hostname: 'db.example.test', source_workload: 'client-deployment' }),
    2,
  );
});

test('a name that leads to a pod of the mesh is reached over HBONE, with its identity', privileged, async () => {
  await using _upstream = await nameserver({ 'pod.example.test': mesh().pod('server').ip });
  using _app = mesh().serve('server', 8080, naming('server'));
  await publish('pod.example.test');
  using client = await dial(mesh(), 'client', { ip: VIP, port: 80 });
  client.socket.end();
  await client.ended();
  assert.equal(client.text, `server sees ${mesh().pod('client').ip}\n`);
  const line = await mesh().agent('n1').access('outbound', { 'src.addr': client.address });
  assert.equal(line['dst.identity'], identityOf('server'));
  assert.equal(line['dst.hbone_addr'], `${mesh().pod('server').ip}:8080`);
});

test('a name that nobody knows refuses the connection and says so', privileged, async () => {
  await using _upstream = await nameserver({});
  await publish('nowhere.example.test');
  using client = await dial(mesh(), 'client', { ip: VIP, port: 80 });
  client.socket.write('hello');
  assert.equal(await client.ended(), 'reset');
  const line = await mesh()
    .agent('n1')
    .line((one) => one['reason'] === 'CV-NO-ADDRESS' && one['src.addr'] === client.address, 'refusal');
  assert.match(String(line['error']), /^ip addresses were resolved for workload outside\/nowhere\.example\.test, but/);
});
