import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MeshError } from '../../../src/base/errors.ts';
import { ClientPool, type Tunnel, type TunnelKey } from '../../../src/tunnel/client-pool.ts';
import { FakeClock } from '../../support/fake-clock.ts';

const key: TunnelKey = {
  identity: 'spiffe://cluster.local/ns/a/sa/client',
  expectedIdentities: ['spiffe://cluster.local/ns/a/sa/server'],
  address: { ip: '10.0.0.2', port: 15_008 },
};

/** A peer with no network: what the pool sees of a session, driven by the test. */
class Peer implements Tunnel<string, { end(): void }> {
  activeStreams = 0;
  peerMaxStreams = 65_535;
  isUsable = true;
  isDestroyed = false;
  readonly #onClosed: () => void;

  constructor(onClosed: () => void) {
    this.#onClosed = onClosed;
  }

  request(): { end(): void } {
    this.activeStreams++;
    return { end: () => this.activeStreams-- };
  }

  destroy(): void {
    this.isDestroyed = true;
    this.isUsable = false;
    this.#onClosed();
  }
}

function world(
  limits: { maxStreams?: number; idleReleaseMs?: number; maxTunnels?: number; born?: 'unusable' | 'closed' } = {},
) {
  const clock = new FakeClock();
  const peers: Peer[] = [];
  let fail: MeshError | undefined;
  const pool = new ClientPool<string, { end(): void }>(
    { maxStreams: 100, idleReleaseMs: 300_000, maxTunnels: 1_000, ...limits },
    {
      clock,
      async dial(_key, onClosed) {
        await Promise.resolve();
        if (fail !== undefined) throw fail;
        const peer = new Peer(onClosed);
        peer.isUsable = limits.born !== 'unusable';
        if (limits.born === 'closed') peer.destroy();
        peers.push(peer);
        return peer;
      },
    },
  );
  return { clock, peers, pool, failWith: (error: MeshError) => (fail = error) };
}

test('a burst on a cold key shares one dial', async () => {
  const { pool, peers } = world();
  await Promise.all(Array.from({ length: 100 }, () => pool.request(key, 'x')));
  assert.equal(peers.length, 1);
});

test('no tunnel carries more streams than the limit, and none is dialled before it is needed', async () => {
  const { pool, peers } = world({ maxStreams: 2 });
  await Promise.all(Array.from({ length: 5 }, () => pool.request(key, 'x')));
  assert.deepEqual(
    peers.map((peer) => peer.activeStreams).sort((a, b) => a - b),
    [1, 2, 2],
  );
});

test('tunnels for streams to come are opened at once, as many as they need, and no more while those wait', async () => {
  const { pool, peers } = world();
  await Promise.all([pool.warm(key, 250), pool.warm(key, 250)]);
  assert.equal(peers.length, 3);

  await pool.warm(key, 300);
  await Promise.all(Array.from({ length: 250 }, () => pool.request(key, 'x')));

  assert.equal(peers.length, 3);
  for (const peer of peers) peer.isUsable = false;
  await pool.warm(key, 1);
  assert.equal(peers.length, 4);
});

test('tunnels for streams to come that cannot be opened are no error until one is asked for', async () => {
  const { pool, failWith } = world();
  failWith(new MeshError('CV-TUNNEL-REFUSED', 'refused'));
  await pool.warm(key, 250);
  await assert.rejects(pool.request(key, 'x'), { code: 'CV-TUNNEL-REFUSED' });
});

test('a full tunnel is used again when its streams end', async () => {
  const { pool, peers } = world({ maxStreams: 1 });
  const first = await pool.request(key, 'x');
  first.stream.end();
  await pool.request(key, 'x');
  assert.equal(peers.length, 1);
});

test('a peer that allows fewer streams gets fewer', async () => {
  const { pool, peers } = world();
  await pool.request(key, 'x');
  for (const peer of peers) peer.peerMaxStreams = 1;
  await pool.request(key, 'x');
  assert.deepEqual(
    peers.map((peer) => peer.activeStreams),
    [1, 1],
  );
});

test('different identities, expectations or addresses never share a tunnel', async () => {
  const { pool, peers } = world();
  await pool.request(key, 'x');
  await pool.request({ ...key, identity: 'spiffe://cluster.local/ns/a/sa/other' }, 'x');
  await pool.request({ ...key, expectedIdentities: [] }, 'x');
  await pool.request({ ...key, address: { ip: '10.0.0.3', port: 15_008 } }, 'x');
  assert.equal(peers.length, 4);
});

test('a failed dial fails every waiter at once, and the next request dials anew', async () => {
  const { pool, failWith } = world();
  failWith(new MeshError('CV-TUNNEL-REFUSED', 'no'));
  const results = await Promise.allSettled([pool.request(key, 'x'), pool.request(key, 'x'), pool.request(key, 'x')]);
  for (const result of results) {
    assert.equal(result.status === 'rejected' && (result.reason as MeshError).code, 'CV-TUNNEL-REFUSED');
  }
  await assert.rejects(pool.request(key, 'x'), { code: 'CV-TUNNEL-REFUSED' });
});

test('a tunnel after GOAWAY takes no new stream and keeps its old ones', async () => {
  const { pool, peers } = world();
  await pool.request(key, 'x');
  for (const peer of peers) peer.isUsable = false;
  await pool.request(key, 'x');
  assert.equal(peers.length, 2);
  assert.equal(peers[0]?.isDestroyed, false);
});

test('a request that must not go on a tunnel again gets another one', async () => {
  const { pool, peers } = world();
  const { tunnel } = await pool.request(key, 'x');
  assert.notEqual((await pool.request(key, 'x', tunnel)).tunnel, tunnel);
  assert.equal(peers.length, 2);
});

test('an idle tunnel is closed after the release time, one with a live stream is not', async () => {
  const { pool, peers, clock } = world({ idleReleaseMs: 100, maxStreams: 1 });
  const busy = await pool.request(key, 'x');
  const idle = await pool.request(key, 'x');
  idle.stream.end();
  for (let i = 0; i < 8; i++) clock.advance(25);
  assert.deepEqual(
    peers.map((peer) => peer.isDestroyed),
    [false, true],
  );
  busy.stream.end();
  for (let i = 0; i < 8; i++) clock.advance(25);
  assert.deepEqual(
    peers.map((peer) => peer.isDestroyed),
    [true, true],
  );
  assert.equal(pool.tunnelCount, 0);
});

test('closing the pool ends tunnels with live streams and refuses new requests', async () => {
  const { pool, peers } = world();
  await pool.request(key, 'x');
  pool.close(new MeshError('CV-DRAIN', 'pool draining'));
  assert.equal(peers[0]?.isDestroyed, true);
  await assert.rejects(pool.request(key, 'x'), { code: 'CV-DRAIN' });
});

test('a dial that finishes after the pool closed does not leave a tunnel behind', async () => {
  const { pool, peers } = world();
  const late = pool.request(key, 'x');
  pool.close(new MeshError('CV-DRAIN', 'pool draining'));
  await assert.rejects(late, { code: 'CV-DRAIN' });
  assert.equal(peers[0]?.isDestroyed, true);
  assert.equal(pool.tunnelCount, 0);
});

test('the number of tunnels of one pod is bounded', async () => {
  const { pool } = world({ maxStreams: 1, maxTunnels: 2 });
  const results = await Promise.allSettled([pool.request(key, 'x'), pool.request(key, 'x'), pool.request(key, 'x')]);
  const refused = results.filter((result) => result.status === 'rejected');
  assert.deepEqual(
    refused.map((result) => (result.reason as MeshError).code),
    ['CV-LIMIT'],
  );
});

test('at the bound the tunnel that was idle for longest makes room', async () => {
  const { pool, peers, clock } = world({ maxTunnels: 2 });
  const to = (port: number): TunnelKey => ({ ...key, address: { ip: '10.0.0.2', port } });
  (await pool.request(to(1), 'x')).stream.end();
  clock.advance(1);
  (await pool.request(to(2), 'x')).stream.end();
  clock.advance(1);
  (await pool.request(to(1), 'x')).stream.end();

  await pool.request(to(3), 'x');

  assert.deepEqual(
    peers.map(({ isDestroyed }) => isDestroyed),
    [false, true, false],
  );
});

test('a tunnel that is gone before its dial is over is not kept', async () => {
  const { pool, peers } = world({ born: 'closed' });
  await assert.rejects(pool.request(key, 'x'), { code: 'CV-TUNNEL-CLOSED' });
  assert.equal(peers.length, 3);
  assert.equal(pool.tunnelCount, 0);
});

test('a peer that refuses each new tunnel is given up on after three dials', async () => {
  const { pool, peers } = world({ born: 'unusable' });
  await assert.rejects(pool.request(key, 'x'), { code: 'CV-TUNNEL-CLOSED' });
  assert.equal(peers.length, 3);
});
