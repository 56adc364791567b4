import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import type { MeshState } from '../../../src/model/mesh-index.ts';
import { readToEnd } from '../../support/tcp.ts';
import { atAddress, workload } from '../../unit/model/sample-mesh.ts';
import { Reader } from '../tunnel/h2-peers.ts';
import { echoBack, ForeignServer } from './foreign-server.ts';
import { CLIENT, OPEN_MESH, ProxyWorld, revoking } from './proxy-world.ts';

const bounded = { timeout: 90_000 };
const WAYPOINT = 'spiffe://cluster.local/ns/default/sa/waypoint';

/** The access-log line of a connection that was cut, or refused, because its peer is revoked. */
async function revokedLine(world: ProxyWorld) {
  const { message, fields } = await world.line(
    (line) => line.message.startsWith('connection ') && line.fields['reason'] === 'CV-PEER-REVOKED',
  );
  return { message, error: fields['error'] };
}

async function rejections(world: ProxyWorld): Promise<string | undefined> {
  return /^istio_crl_policy_rejections_total.*$/m.exec(await world.metrics.render())?.[0];
}

test('inbound: a client on a revocation list gets no tunnel, and the log says why', bounded, async () => {
  await using world = new ProxyWorld();
  world.authority.crlsChanged([await revoking(CLIENT)]);
  const socket = await world.connect('hbone');
  const peer = await world.tunnel(socket);
  await peer.closed;

  assert.deepEqual(await revokedLine(world), {
    message: 'connection failed',
    error: 'tls handshake error: peer certificate is revoked by CRL',
  });
  assert.equal(await rejections(world), 'istio_crl_policy_rejections_total{reporter="destination"} 1');
});

test('inbound: the tunnel of a client that comes on a list is cut, and its connections with it', bounded, async () => {
  await using world = new ProxyWorld();
  const { ip, port } = await world.app();
  const peer = await world.tunnel();
  const stream = peer.session.request({ authority: `${ip}:${port}` });
  assert.equal((await stream.response).status, 200);
  const reader = new Reader(stream);
  stream.write(Buffer.from('alive'));
  await reader.until(5);

  world.authority.crlsChanged([await revoking(CLIENT)]);

  await peer.closed;
  assert.deepEqual(await revokedLine(world), {
    message: 'connection complete',
    error: 'connection closed: peer certificate revoked by CRL',
  });
  assert.match(await world.metrics.render(), /istio_tcp_connections_closed_total\{.*response_flags="CERT_REVOKED"/);
  assert.equal(await rejections(world), 'istio_crl_policy_rejections_total{reporter="destination"} 1');
});

test('outbound: a server on a revocation list is not spoken to', bounded, async () => {
  await using server = await ForeignServer.start(WAYPOINT, echoBack);
  await using world = new ProxyWorld({ mesh: behindWaypoint(await server.listen()) });
  world.target = { ip: '10.0.0.9', port: 80 };
  world.authority.crlsChanged([await revoking(WAYPOINT)]);
  const client = await world.connect('outbound');
  assert.equal(await readToEnd(client).catch(() => ''), '');

  assert.deepEqual(await revokedLine(world), {
    message: 'connection complete',
    error: 'tls handshake error: peer certificate is revoked by CRL',
  });
  assert.equal(server.connects.length, 0);
  assert.equal(await rejections(world), 'istio_crl_policy_rejections_total{reporter="source"} 1');
});

test('outbound: the tunnel to a server that comes on a list is cut, and its connections with it', bounded, async () => {
  await using server = await ForeignServer.start(WAYPOINT, echoBack);
  await using world = new ProxyWorld({ mesh: behindWaypoint(await server.listen()) });
  world.target = { ip: '10.0.0.9', port: 80 };
  const client = await world.connect('outbound');
  client.write('alive');
  await once(client, 'data');

  world.authority.crlsChanged([await revoking(WAYPOINT)]);

  assert.equal(await readToEnd(client).catch(() => 'reset'), 'reset');
  assert.equal((await revokedLine(world)).error, 'connection closed: peer certificate revoked by CRL');
  assert.equal(world.proxies.counts('p1')?.tunnelsOut, 0);
});

/** `10.0.0.9` is reached through the waypoint at this address. */
function behindWaypoint({ ip, port }: { readonly ip: string; readonly port: number }): MeshState {
  const far = workload('far', { ips: ['10.0.0.9'], waypoint: atAddress(ip, { hbonePort: port }) });
  const here = workload('server', { ips: ['127.0.0.2'] });
  return { ...OPEN_MESH, workloads: [here, workload('waypoint', { ips: [ip] }), far] };
}
