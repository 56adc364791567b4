/** What the reference leaves unbounded has a bound here. The tests run side by side: they only wait. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { identityOf, meshForFile } from '../../support/mesh.ts';
import { meshMaterial, openTls, serveWaypoint } from '../../support/mesh-hbone.ts';
import { Client, dial, doubling } from '../../support/mesh-traffic.ts';
import { metricsOf } from '../../support/metric-text.ts';
import { skipWithoutRoot } from '../../support/netns.ts';

const privileged = { skip: skipWithoutRoot, timeout: 60_000 };
const MOST_CONNECTIONS = 20;
const env = {
  CULVERT_IDLE_TIMEOUT: '3s',
  CULVERT_HALF_CLOSED_TIMEOUT: '1s',
  CULVERT_MAX_CONNECTIONS: String(MOST_CONNECTIONS),
};
/** `outside-…` pods are believed to be HBONE pods: one never answers TCP, one never answers CONNECT. */
const mesh = meshForFile({
  nodes: { n1: ['client', 'crowd'], n2: ['server', 'server2'], n3: ['outside', 'outside-hole', 'outside-mute'] },
  env,
  mesh: (found) => ({
    workloads: found.workloads({ 'outside-hole': { protocol: 'HBONE' }, 'outside-mute': { protocol: 'HBONE' } }),
  }),
});

function server(port: number) {
  return { ip: mesh().pod('server').ip, port };
}

/** In plaintext, so that one agent alone decides. */
function outside(port: number) {
  return { ip: mesh().pod('outside').ip, port };
}

describe('bounds', { concurrency: true, skip: skipWithoutRoot }, () => {
  test('a connection on which nothing moves is closed, one that is used is not', privileged, async () => {
    using _app = mesh().serve('outside', 8001, doubling);
    using idle = await dial(mesh(), 'client', outside(8001));
    using busy = await dial(mesh(), 'client', outside(8001));
    await idle.exchange('hello');
    const ticks = setInterval(() => busy.socket.write('x'), 500);
    const end = await idle.ended();
    clearInterval(ticks);
    assert.equal(end, 'reset');
    const line = await mesh().agent('n1').access('outbound', { 'src.addr': idle.address });
    assert.equal(line['reason'], 'CV-IDLE');
    assert.equal(line['error'], 'connection idle for 3 s');
    await busy.exchange('still');
  });

  test('a connection of which one half has ended is given less time', privileged, async () => {
    using _app = mesh().serve('outside', 8002, () => {});
    using client = await dial(mesh(), 'client', outside(8002));
    client.socket.end('question');
    assert.equal(await client.ended(), 'reset');
    const line = await mesh().agent('n1').access('outbound', { 'src.addr': client.address });
    assert.equal(line['reason'], 'CV-IDLE');
    assert.equal(line['error'], 'half-closed connection idle for 1 s');
  });

  test(
    'a pod may have so many connections, the next is refused, and one that ends makes room',
    privileged,
    async () => {
      using _app = mesh().serve('server2', 8003, doubling);
      const to = { ip: mesh().pod('server2').ip, port: 8003 };
      const clients: Client[] = [];
      for (let i = 0; i < MOST_CONNECTIONS; i++) {
        const client = await dial(mesh(), 'crowd', to);
        await client.exchange('x');
        clients.push(client);
      }
      const ticks = setInterval(() => clients.forEach((client) => client.socket.write('x')), 300);
      using late = await dial(mesh(), 'crowd', to);
      late.socket.write('x');
      assert.equal(await late.ended(), 'reset');
      assert.equal(late.bytes, 0);
      const line = await mesh().agent('n1').access('outbound', { 'src.addr': late.address });
      assert.equal(line['reason'], 'CV-LIMIT');
      assert.match(String(line['error']), new RegExp(`\\b${MOST_CONNECTIONS} connections`));
      const [first] = clients;
      first?.socket.end();
      await first?.ended();
      await mesh().agent('n1').access('outbound', { 'src.addr': first?.address });
      using next = await dial(mesh(), 'crowd', to);
      assert.equal(await next.exchange('hello'), 'hellohello');
      clearInterval(ticks);
      for (const client of clients) client[Symbol.dispose]();
    },
  );

  test(
    'a destination that drops packets on 15008 is given up after ten seconds, as a NetworkPolicy would look',
    privileged,
    async () => {
      const { inside, ip } = mesh().pod('outside-hole');
      const rules = 'add table ip hole; add chain ip hole in { type filter hook input priority 0; policy drop; }';
      const { code, stderr } = await inside.exec(['nft', rules]);
      assert.equal(code, 0, stderr);
      using client = await dial(mesh(), 'client', { ip, port: 8080 });
      client.socket.write('hello');
      assert.equal(await client.ended(), 'reset');
      const line = await mesh().agent('n1').access('outbound', { 'src.addr': client.address });
      assert.equal(line['reason'], 'CV-TUNNEL-TIMEOUT');
      assert.equal(
        line['error'],
        'connection timed out, maybe a NetworkPolicy is blocking HBONE port 15008: deadline has elapsed',
      );
      const metric = await metricsOf(mesh().agent('n1'));
      assert.equal(metric('istio_tcp_connections_closed_total', { response_flags: 'NETWORK_POLICY' }), 1);
    },
  );

  test('a peer that never answers CONNECT is given up after twenty seconds', privileged, async () => {
    using peer = await serveWaypoint(mesh(), 'outside-mute', identityOf('outside-mute'), () => {});
    using client = await dial(mesh(), 'client', { ip: mesh().pod('outside-mute').ip, port: 8080 });
    client.socket.write('hello');
    assert.equal(await client.ended(), 'reset');
    assert.equal(client.bytes, 0);
    assert.equal(peer.seen.length, 1);
    const line = await mesh().agent('n1').access('outbound', { 'src.addr': client.address });
    assert.equal(line['reason'], 'CV-CONNECT-TIMEOUT');
  });

  test('a handshake that does not go on is dropped after ten seconds', privileged, async () => {
    using client = await dial(mesh(), 'outside', server(15_008));
    client.socket.write(Buffer.from('1603010200', 'hex'));
    await client.ended();
    const line = await mesh().agent('n2').access('inbound', { 'src.addr': client.address });
    assert.equal(line['reason'], 'CV-TLS-TIMEOUT');
  });

  test('a peer that shakes hands and then says nothing is dropped after ten seconds', privileged, async () => {
    const material = await meshMaterial(mesh(), identityOf('client'));
    const to = { ip: server(0).ip, material, expected: [identityOf('server')] };
    using client = new Client(await openTls(mesh(), 'outside', to));
    await client.ended();
    // SETTINGS, WINDOW_UPDATE, and in the end GOAWAY with SETTINGS_TIMEOUT.
    assert.match(client.received.toString('hex'), /0700000000000000000000000004/);
  });
});
