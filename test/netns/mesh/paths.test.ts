import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { LabNetns } from '../../../src/cli/lab/namespace.ts';
import { identityOf, meshForFile, NAMESPACE } from '../../support/mesh.ts';
import { ask, dial, doubling, naming } from '../../support/mesh-traffic.ts';
import { metricsOf } from '../../support/metric-text.ts';
import { skipWithoutRoot } from '../../support/netns.ts';

const privileged = { skip: skipWithoutRoot, timeout: 60_000 };
const mesh = meshForFile({ nodes: { n1: ['client', 'near'], n2: ['server'], n3: ['outside'] } });

/** One exchange of 11 bytes asked, 22 answered; resolves when both agents have logged its end. */
async function elevenBytes(from: string, to: string, port: number) {
  const { ip } = mesh().pod(to);
  using _app = mesh().serve(to, port, doubling);
  using client = await dial(mesh(), from, { ip, port });
  assert.equal(await client.exchange('hello world'), 'hello worldhello world');
  client.socket.end();
  assert.equal(await client.ended(), 'end');
  return { client: client.address, hbone: `${ip}:${port}` };
}

for (const [name, to, port] of [
  ['captured pods on one node talk through HBONE', 'near', 8081],
  ['captured pods on two nodes talk through HBONE', 'server', 8082],
] as const) {
  test(`${name}; both logs name both identities`, privileged, async () => {
    const { client, hbone } = await elevenBytes('client', to, port);
    const outbound = await mesh().agent('n1').access('outbound', { 'src.addr': client });
    const inbound = await mesh().agent(mesh().pod(to).node).access('inbound', { 'dst.hbone_addr': hbone });
    const [source, destination] = [mesh().pod('client'), mesh().pod(to)];
    const common = {
      'src.workload': 'client',
      'src.namespace': NAMESPACE,
      'src.identity': identityOf('client'),
      'dst.addr': `${destination.ip}:15008`,
      'dst.hbone_addr': hbone,
      'dst.workload': to,
      'dst.identity': identityOf(to),
      error: undefined,
    };
    for (const line of [outbound, inbound]) {
      for (const [field, wanted] of Object.entries(common)) assert.equal(line[field], wanted, field);
      assert.equal(line.message, 'connection complete');
    }
    assert.match(String(inbound['src.addr']), new RegExp(`^${source.ip.replaceAll('.', '\\.')}:\\d+$`));
  });
}

test(
  '11 bytes asked and 22 answered are counted so by both reporters and logged from each side',
  privileged,
  async () => {
    const { client, hbone } = await elevenBytes('client', 'server', 8083);
    const outbound = await mesh().agent('n1').access('outbound', { 'src.addr': client });
    const inbound = await mesh().agent('n2').access('inbound', { 'dst.hbone_addr': hbone });
    assert.deepEqual([outbound['bytes_sent'], outbound['bytes_recv']], [11, 22]);
    assert.deepEqual([inbound['bytes_sent'], inbound['bytes_recv']], [22, 11]);
  },
);

test('both reporters count the connection and its bytes under the same labels', privileged, async () => {
  const before = await Promise.all(['n1', 'n2'].map((node) => metricsOf(mesh().agent(node))));
  const { client, hbone } = await elevenBytes('client', 'server', 8084);
  await mesh().agent('n1').access('outbound', { 'src.addr': client });
  await mesh().agent('n2').access('inbound', { 'dst.hbone_addr': hbone });
  const now = await Promise.all(['n1', 'n2'].map((node) => metricsOf(mesh().agent(node))));
  for (const [i, reporter] of ['source', 'destination'].entries()) {
    const labels = {
      reporter,
      source_workload: 'client-deployment',
      source_principal: identityOf('client'),
      destination_workload: 'server-deployment',
      destination_principal: identityOf('server'),
      connection_security_policy: 'mutual_tls',
      request_protocol: 'tcp',
      response_flags: '-',
    };
    const grown = (name: string): number => (now[i]?.(name, labels) ?? 0) - (before[i]?.(name, labels) ?? 0);
    assert.equal(grown('istio_tcp_received_bytes_total'), 11, `${reporter} received`);
    assert.equal(grown('istio_tcp_sent_bytes_total'), 22, `${reporter} sent`);
    assert.equal(grown('istio_tcp_connections_opened_total'), 1, `${reporter} opened`);
    assert.equal(grown('istio_tcp_connections_closed_total'), 1, `${reporter} closed`);
  }
});

test('an open connection is counted as opened, not as closed, until it ends', privileged, async () => {
  const { ip } = mesh().pod('server');
  using _app = mesh().serve('server', 8085, doubling);
  const closedBefore = (await metricsOf(mesh().agent('n1')))('istio_tcp_connections_closed_total');
  using client = await dial(mesh(), 'client', { ip, port: 8085 });
  await client.exchange('x');
  const open = await metricsOf(mesh().agent('n1'));
  assert.equal(open('istio_tcp_connections_opened_total') - closedBefore, 1);
  assert.equal(open('istio_tcp_connections_closed_total'), closedBefore);
  client.socket.end();
  await mesh().agent('n1').access('outbound', { 'src.addr': client.address });
  const ended = await metricsOf(mesh().agent('n1'));
  assert.equal(ended('istio_tcp_connections_closed_total'), closedBefore + 1);
});

test('a captured client reaches an uncaptured server in plaintext, logged without identities', privileged, async () => {
  const { client } = await elevenBytes('client', 'outside', 8086);
  const line = await mesh().agent('n1').access('outbound', { 'src.addr': client });
  assert.equal(line['dst.addr'], `${mesh().pod('outside').ip}:8086`);
  assert.equal(line['dst.workload'], 'outside');
  for (const field of ['src.identity', 'dst.identity', 'dst.hbone_addr', 'error']) assert.equal(line[field], undefined);
});

test('an uncaptured client is served in plaintext, logged without identities', privileged, async () => {
  const { client } = await elevenBytes('outside', 'server', 8087);
  const line = await mesh().agent('n2').access('inbound', { 'src.addr': client });
  assert.equal(line['dst.addr'], `${mesh().pod('server').ip}:8087`);
  assert.equal(line['src.workload'], 'outside');
  for (const field of ['src.identity', 'dst.identity', 'dst.hbone_addr', 'error']) assert.equal(line[field], undefined);
});

test('an address that nobody described is dialled as it is, in plaintext', privileged, async () => {
  const node = mesh().lab.node('n3');
  const { child, ready } = listenOnNode(node.inside);
  try {
    await ready;
    const answer = await ask(mesh(), 'client', { ip: node.ips[0] ?? '', port: 9_999 });
    assert.equal(answer, 'node\n');
  } finally {
    child.kill('SIGKILL');
  }
});

test('the server sees the address of the client pod, through HBONE and in plaintext', privileged, async () => {
  using _app = mesh().serve('server', 8088, naming('server'));
  const to = { ip: mesh().pod('server').ip, port: 8088 };
  assert.equal(await ask(mesh(), 'client', to), `server sees ${mesh().pod('client').ip}\n`);
  assert.equal(await ask(mesh(), 'outside', to), `server sees ${mesh().pod('outside').ip}\n`);
});

test('only replies to a borrowed address are marked and routed again', privileged, async () => {
  const atClient = await markedPackets('client');
  const [remembered, marked] = await markedPackets('server');
  await elevenBytes('client', 'server', 8093);
  assert.deepEqual(await markedPackets('client'), atClient);
  const [rememberedNow, markedNow] = await markedPackets('server');
  assert.ok(rememberedNow > remembered, `${remembered} packets remembered, then ${rememberedNow}`);
  assert.ok(markedNow > marked, `${marked} packets marked, then ${markedNow}`);
});

test('a pod that dials its own address reaches its own application directly', privileged, async () => {
  using _app = mesh().serve('client', 8089, naming('self'));
  const { ip } = mesh().pod('client');
  assert.equal(await ask(mesh(), 'client', { ip, port: 8089 }), `self sees ${ip}\n`);
  assert.equal(await ask(mesh(), 'client', { ip: '127.0.0.1', port: 8089 }), 'self sees 127.0.0.1\n');
  // Had the agent seen those, their lines would come before the line of this one.
  const { client } = await elevenBytes('client', 'server', 8092);
  await mesh().agent('n1').access('outbound', { 'src.addr': client });
  const logged = mesh()
    .agent('n1')
    .lines.map((line) => JSON.stringify(line));
  assert.deepEqual(
    logged.filter((line) => line.includes(':8089"')),
    [],
  );
});

test(
  'a port nobody listens on ends the connection at once: 503 between the agents, CONNECT in both logs',
  privileged,
  async () => {
    using client = await dial(mesh(), 'client', { ip: mesh().pod('server').ip, port: 8090 });
    assert.equal(await client.ended(), 'reset');
    assert.equal(client.bytes, 0);
    const outbound = await mesh().agent('n1').access('outbound', { 'src.addr': client.address });
    assert.equal(outbound['error'], 'http status: 503 Service Unavailable');
    assert.equal(outbound['reason'], 'CV-CONNECT-FAILED');
    const hbone = { 'dst.hbone_addr': `${mesh().pod('server').ip}:8090` };
    const inbound = await mesh().agent('n2').access('inbound', hbone);
    assert.equal(inbound['reason'], 'CV-APP-REFUSED');
    assert.match(String(inbound['error']), /^connection failed: ECONNREFUSED/);
  },
);

test('a plaintext server that is not there ends the connection, and the log has the reason', privileged, async () => {
  using client = await dial(mesh(), 'client', { ip: mesh().pod('outside').ip, port: 8091 });
  assert.equal(await client.ended(), 'reset');
  assert.equal(client.bytes, 0);
  const line = await mesh().agent('n1').access('outbound', { 'src.addr': client.address });
  assert.equal(line['reason'], 'CV-APP-REFUSED');
});

/** How many packets the rules of a pod have remembered a connection by, and how many they have marked. */
async function markedPackets(pod: string): Promise<readonly [remembered: number, marked: number]> {
  const table = ['nft', 'list', 'table', 'inet', 'istio-ambient-mangle'];
  const { stdout } = await mesh().pod(pod).inside.exec(table);
  const [remembered, marked] = [...stdout.matchAll(/counter packets (\d+)/g)].map(([, packets]) => Number(packets));
  assert.ok(remembered !== undefined && marked !== undefined, stdout);
  return [remembered, marked];
}

/** A server on the node itself: an address that the mesh file does not know. */
function listenOnNode(inside: LabNetns) {
  const script = `require('net').createServer({allowHalfOpen:true},s=>{s.on('error',()=>{});s.end('node\\n');s.resume()}).listen(9999,()=>console.log('up'))`;
  const child = inside.spawn([process.execPath, '-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
  const { promise, resolve } = Promise.withResolvers<void>();
  child.stdout?.once('data', () => resolve());
  return { child, ready: promise };
}
