import assert from 'node:assert/strict';
import type net from 'node:net';
import { test } from 'node:test';
import { identityOf, type MeshRecord, meshForFile } from '../../support/mesh.ts';
import { serveWaypoint } from '../../support/mesh-hbone.ts';
import { ask, Client, dial, naming } from '../../support/mesh-traffic.ts';
import { skipWithoutRoot } from '../../support/netns.ts';

const privileged = { skip: skipWithoutRoot, timeout: 60_000 };
const VIP = '10.96.0.20';
const WAYPOINT_VIP = '10.96.0.21';
const WAYPOINT_HOST = 'way.demo.svc.cluster.local';
/** `outside-way` is a waypoint of its own making, `sandwich` is a captured pod that is one. */
const mesh = meshForFile({ nodes: { n1: ['client'], n2: ['server', 'sandwich'], n3: ['outside-way'] } });

function service(name: string, vip: string, fields: MeshRecord = {}): MeshRecord {
  const hostname = `${name}.demo.svc.cluster.local`;
  return { name, namespace: 'demo', hostname, vips: [`/${vip}`], ports: { 80: 8080 }, ...fields };
}

function byIp(pod: string): MeshRecord {
  return { destination: `/${mesh().pod(pod).ip}`, hboneMtlsPort: 15_008 };
}

/** Through the waypoint played by this test: what it saw and what the application got. */
async function throughWaypoint(to: { ip: string; port: number }) {
  using waypoint = await serveWaypoint(mesh(), 'outside-way', identityOf('outside-way'));
  using client = await dial(mesh(), 'client', to);
  client.socket.end('hello world');
  await client.ended();
  assert.equal(client.text, 'waypoint\nhello worldhello world');
  const line = await mesh().agent('n1').access('outbound', { 'src.addr': client.address });
  assert.equal(line['dst.addr'], `${mesh().pod('outside-way').ip}:15008`);
  assert.equal(line['dst.identity'], identityOf('outside-way'));
  assert.deepEqual([line['bytes_sent'], line['bytes_recv']], [11, 31]);
  const [connect] = waypoint.seen;
  assert.equal(waypoint.seen.length, 1);
  assert.equal(connect?.identity, identityOf('client'));
  return { authority: connect?.request.authority, forwarded: connect?.request.headers.get('forwarded'), line, client };
}

test(
  'a workload behind a waypoint given by address is reached through it, by the authority dialled',
  privileged,
  async () => {
    await mesh().update({ workloads: mesh().workloads({ server: { waypoint: byIp('outside-way') } }) });
    const { ip } = mesh().pod('server');
    const seen = await throughWaypoint({ ip, port: 8080 });
    assert.equal(seen.authority, `${ip}:8080`);
    assert.equal(seen.line['dst.hbone_addr'], `${ip}:8080`);
    assert.deepEqual(seen.forwarded, [`for="${seen.client.address}"`]);
  },
);

test('a service behind a waypoint is reached through it, and no endpoint is chosen for it', privileged, async () => {
  await mesh().update({ services: [service('web', VIP, { waypoint: byIp('outside-way') })] });
  const seen = await throughWaypoint({ ip: VIP, port: 80 });
  assert.equal(seen.authority, `${VIP}:80`);
  assert.equal(seen.line['dst.service'], 'web.demo.svc.cluster.local');
  assert.deepEqual(seen.forwarded, [`for="${seen.client.address}";host=web.demo.svc.cluster.local`]);
});

test('a waypoint given by the host name of a service is found through the service', privileged, async () => {
  const destination = `demo/${WAYPOINT_HOST}`;
  await mesh().update({
    services: [service('way', WAYPOINT_VIP, { ports: { 15_008: 15_008 } })],
    workloads: mesh().workloads({
      server: { waypoint: { destination, hboneMtlsPort: 15_008 } },
      'outside-way': { services: { [destination]: { 15_008: 15_008 } } },
    }),
  });
  const { ip } = mesh().pod('server');
  assert.equal((await throughWaypoint({ ip, port: 8080 })).authority, `${ip}:8080`);
});

test('a waypoint given by the host name of a workload is found', privileged, async () => {
  const destination = `demo/${WAYPOINT_HOST}`;
  await mesh().update({
    workloads: mesh().workloads({
      server: { waypoint: { destination, hboneMtlsPort: 15_008 } },
      'outside-way': { hostname: WAYPOINT_HOST },
    }),
  });
  const { ip } = mesh().pod('server');
  assert.equal((await throughWaypoint({ ip, port: 8080 })).authority, `${ip}:8080`);
});

test('a waypoint that proves another identity is not used', privileged, async () => {
  await mesh().update({ services: [service('web', VIP, { waypoint: byIp('outside-way') })] });
  using waypoint = await serveWaypoint(mesh(), 'outside-way', identityOf('impostor'));
  using client = await dial(mesh(), 'client', { ip: VIP, port: 80 });
  client.socket.end('secret');
  assert.equal(await client.ended(), 'reset');
  assert.equal(client.bytes, 0);
  assert.deepEqual(waypoint.seen, []);
  const line = await mesh().agent('n1').access('outbound', { 'src.addr': client.address });
  assert.equal(line['reason'], 'CV-PEER-IDENTITY');
  assert.match(String(line['error']), /expected SAN .*outside-way.*got .*impostor/);
});

test('a waypoint without an instance refuses the connection; it is never bypassed', privileged, async () => {
  const destination = `demo/${WAYPOINT_HOST}`;
  await mesh().update({
    services: [service('way', WAYPOINT_VIP, { ports: { 15_008: 15_008 } })],
    workloads: mesh().workloads({ server: { waypoint: { destination, hboneMtlsPort: 15_008 } } }),
  });
  using _app = mesh().serve('server', 8080, naming('server'));
  using client = await dial(mesh(), 'client', { ip: mesh().pod('server').ip, port: 8080 });
  assert.equal(await client.ended(), 'reset');
  assert.equal(client.bytes, 0);
  const line = await mesh().agent('n1').access('outbound', { 'src.addr': client.address });
  assert.equal(line['reason'], 'CV-WAYPOINT-UNKNOWN');
  assert.match(String(line['error']), /^unknown waypoint: /);
});

test(
  'a captured waypoint without its own tunnel hears the plain bytes of a foreign authority',
  privileged,
  async () => {
    await mesh().update({
      workloads: mesh().workloads({
        server: { waypoint: byIp('sandwich') },
        sandwich: { applicationTunnel: { protocol: 'NONE' } },
      }),
    });
    using _app = mesh().serve('sandwich', 8080, naming('sandwich'));
    const { ip } = mesh().pod('server');
    assert.equal(await ask(mesh(), 'client', { ip, port: 8080 }), `sandwich sees ${mesh().pod('client').ip}\n`);
    const inbound = await mesh()
      .agent('n2')
      .access('inbound', { 'dst.hbone_addr': `${ip}:8080` });
    assert.equal(inbound['dst.workload'], 'sandwich');
  },
);

test(
  'a captured waypoint with a PROXY tunnel is told source, destination and identity before the data',
  privileged,
  async () => {
    await mesh().update({
      // As the reference has it: a waypoint service without a single port.
      services: [service('way', WAYPOINT_VIP, { ports: {} })],
      workloads: mesh().workloads({
        server: { waypoint: { destination: `/${WAYPOINT_VIP}`, hboneMtlsPort: 15_008 } },
        sandwich: {
          applicationTunnel: { protocol: 'PROXY', port: 15_088 },
          services: { [`demo/${WAYPOINT_HOST}`]: { 15_008: 15_008 } },
        },
      }),
    });
    const { promise: accepted, resolve } = Promise.withResolvers<net.Socket>();
    using _app = mesh().serve('sandwich', 15_088, resolve);
    const { ip } = mesh().pod('server');
    using client = await dial(mesh(), 'client', { ip, port: 8080 });
    client.socket.write('GET /');
    const socket = await accepted;
    using server = new Client(socket);
    const identity = identityOf('client');
    await server.atLeast(16 + 12 + 3 + identity.length + 'GET /'.length);
    const header = readProxyV2(server.received);
    assert.deepEqual(
      { ...header, source: header.source.replace(/:\d+$/, '') },
      { source: mesh().pod('client').ip, destination: `${ip}:8080`, identity, rest: 'GET /' },
    );
    assert.equal((socket.remoteAddress ?? '').replace('::ffff:', ''), '127.0.0.1');
  },
);

test('what comes from the waypoint of a workload is not sent through it again', privileged, async () => {
  await mesh().update({
    workloads: mesh().workloads({
      server: { waypoint: byIp('sandwich') },
      sandwich: { applicationTunnel: { protocol: 'NONE' } },
    }),
  });
  using _app = mesh().serve('server', 8080, naming('server'));
  const { ip } = mesh().pod('server');
  assert.equal(await ask(mesh(), 'sandwich', { ip, port: 8080 }), `server sees ${mesh().pod('sandwich').ip}\n`);
});

/** Header of the PROXY protocol, version 2, IPv4 over TCP, with one SPIFFE TLV; and what follows it. */
function readProxyV2(bytes: Buffer) {
  assert.equal(bytes.subarray(0, 12).toString('hex'), '0d0a0d0a000d0a515549540a');
  assert.equal(bytes.readUInt8(12), 0x21, 'version 2, PROXY');
  assert.equal(bytes.readUInt8(13), 0x11, 'IPv4 over a stream');
  const end = 16 + bytes.readUInt16BE(14);
  const address = (at: number): string => [...bytes.subarray(at, at + 4)].join('.');
  assert.equal(bytes.readUInt8(28), 0xd0);
  const identity = bytes.subarray(31, 31 + bytes.readUInt16BE(29)).toString();
  assert.equal(31 + identity.length, end, 'nothing else in the header');
  return {
    source: `${address(16)}:${bytes.readUInt16BE(24)}`,
    destination: `${address(20)}:${bytes.readUInt16BE(26)}`,
    identity,
    rest: bytes.subarray(end).toString(),
  };
}
