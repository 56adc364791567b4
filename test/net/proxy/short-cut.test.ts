/** Same-node short cuts of a pod that calls itself: the one relay and its two connections. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import type net from 'node:net';
import { test } from 'node:test';
import { FakeClock } from '../../support/fake-clock.ts';
import { ProxyWorld } from './proxy-world.ts';

const bounded = { timeout: 90_000 };
const IDLE_MS = 60_000;

/** What the pod sends to the application comes back. */
async function exchange(client: net.Socket, text: string): Promise<void> {
  client.write(text);
  const [chunk] = (await once(client, 'data')) as [Buffer];
  assert.equal(chunk.toString(), text);
}

async function called(world: ProxyWorld): Promise<net.Socket> {
  world.target = await world.app();
  const client = await world.connect('outbound');
  await exchange(client, 'hello');
  return client;
}

/** By an end or by a reset. */
function ended(client: net.Socket): Promise<void> {
  return new Promise((resolve) => client.once('end', resolve).once('close', () => resolve()));
}

/** What both lines said about the end, outbound first. */
async function reasons(world: ProxyWorld): Promise<unknown[]> {
  await world.line(() => world.ends.length === 2);
  const sorted = world.ends.toSorted(
    (a, b) => -String(a.fields['direction']).localeCompare(String(b.fields['direction'])),
  );
  return sorted.map(({ fields }) => fields['reason']);
}

test('both ends of a short cut have a whole period of their own before they count as idle', bounded, async () => {
  const clock = new FakeClock();
  const settings = { idleTimeoutMs: IDLE_MS, halfClosedTimeoutMs: 10 * IDLE_MS };
  await using world = new ProxyWorld({ clock, settings, isShortCutAccepted: true });
  const client = await called(world);

  for (let period = 0; period < 3; period++) {
    clock.advance(IDLE_MS);
    await exchange(client, 'still there');
  }
  clock.advance(IDLE_MS);
  const over = ended(client);
  clock.advance(IDLE_MS);

  await over;
  assert.equal((await reasons(world)).includes('CV-IDLE'), true);
});

test('a stop ends a short cut after its grace, and each of its connections has one line', bounded, async () => {
  const clock = new FakeClock();
  await using world = new ProxyWorld({ clock, drainGraceMs: 1_000, isShortCutAccepted: true });
  const client = await called(world);
  const over = ended(client);

  const stopped = world.stop('graceful');
  let isOver = false;
  void stopped.then(() => (isOver = true));
  while (!isOver) {
    clock.advance(500);
    await new Promise((resolve) => setImmediate(resolve));
  }

  await over;
  assert.equal((await reasons(world)).includes('CV-DRAIN'), true);
});

test('the bound on connections of the pod that is called holds: 503 for the one that calls', bounded, async () => {
  await using world = new ProxyWorld({ settings: { maxConnections: 1 }, isShortCutAccepted: true });
  world.target = await world.app();
  await ended(world.dial('outbound').resume());

  assert.deepEqual(await reasons(world), ['CV-CONNECT-FAILED', 'CV-LIMIT']);
});

test('without the word of the operator it is a tunnel', bounded, async () => {
  await using world = new ProxyWorld();
  world.target = await world.app();
  await ended(world.dial('outbound').resume());

  const { fields } = await world.line(({ message }) => message === 'connection complete');
  assert.equal(fields['dst.addr'], '127.0.0.1:15008');
});
