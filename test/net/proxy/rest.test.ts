/** A pod whose listeners go to another thread of the same agent, and come back. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import type net from 'node:net';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { ProxyWorld } from './proxy-world.ts';

const bounded = { timeout: 60_000 };
const MOVES = 20;
/** Of each move, some before and some after it. */
const CLIENTS = 10;

async function echoed(client: net.Socket, text: string): Promise<void> {
  client.write(text);
  let got = '';
  while (got.length < text.length) got += String((await once(client, 'data'))[0]);
  assert.equal(got, text);
}

/** Two threads that can serve the same pod. */
async function threads(use: (one: ProxyWorld, other: ProxyWorld) => Promise<void>): Promise<void> {
  await using one = new ProxyWorld();
  one.target = await one.app();
  const inherited = { listeners: one.proxy.rest(), connections: [] };
  await using other = new ProxyWorld({ former: one, inherited });
  other.target = one.target;
  one.proxy.serveAgain(other.proxy.rest());
  await use(one, other);
}

test('listeners that go from thread to thread lose no client, whichever has them', bounded, () =>
  threads(async (one, other) => {
    const served: Promise<void>[] = [];
    const dial = (): void => {
      const client = one.dial('plaintext');
      served.push(once(client, 'connect').then(() => echoed(client, 'hello')));
    };
    for (let move = 0; move < MOVES; move++) {
      const [from, to] = move % 2 === 0 ? [one, other] : [other, one];
      for (let at = 0; at < CLIENTS; at++) dial();
      const listeners = from.proxy.rest();
      for (let at = 0; at < CLIENTS; at++) dial();
      await nextTurn();
      to.proxy.serveAgain(listeners);
      await nextTurn();
    }
    await Promise.all(served);
    assert.equal(served.length, MOVES * CLIENTS * 2);
    const counts = [one, other].map(({ records }) => records.totals().opened);
    assert.ok(
      counts.every((count) => count > 0),
      counts.join(),
    );
    assert.equal(
      counts.reduce((sum, count) => sum + count, 0),
      served.length,
    );
  }),
);

test('a pod at rest goes on with what it has open, and says so to tunnels', bounded, () =>
  threads(async (one, other) => {
    const client = await one.connect('plaintext');
    await echoed(client, 'before');
    const tunnel = await one.tunnel();
    other.proxy.serveAgain(one.proxy.rest());
    await tunnel.closed;
    await echoed(client, 'after');
    assert.deepEqual([one.records.totals().live, other.records.totals().live], [1, 0]);
  }),
);

test('a pod that serves again takes new tunnels as before', bounded, () =>
  threads(async (one, other) => {
    other.proxy.serveAgain(one.proxy.rest());
    one.proxy.serveAgain(other.proxy.rest());
    const { session } = await one.tunnel();
    const stream = session.request({ authority: `${one.target?.ip}:${one.target?.port}` });
    assert.equal((await stream.response).status, 200);
    assert.deepEqual([session.isUsable, one.proxies.counts('p1')?.tunnelsIn], [true, 1]);
  }),
);
