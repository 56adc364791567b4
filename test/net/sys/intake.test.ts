import assert from 'node:assert/strict';
import { once } from 'node:events';
import net from 'node:net';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Arrival } from '../../../src/sys/arrivals.ts';
import { closeFd } from '../../../src/sys/duplicate.ts';
import { Intake } from '../../../src/sys/intake.ts';
import { linuxSys } from '../../../src/sys/linux.ts';
import { localAddress } from '../../../src/sys/sockets.ts';
import { listenForArrivals } from '../../../src/sys/tcp.ts';
import { until } from '../../support/until.ts';

const bounded = { timeout: 60_000 };

/** A listener of which it is counted what has arrived. */
class World implements AsyncDisposable {
  readonly arrived: Arrival[] = [];
  readonly intake: Intake;
  readonly #port: number;
  readonly #clients: net.Socket[] = [];

  constructor() {
    const { fd } = linuxSys.listenTcp(undefined, { address: '127.0.0.1', port: 0 });
    this.#port = localAddress(fd)?.port ?? 0;
    const onArrival = (arrival: Arrival): void => void this.arrived.push(arrival);
    this.intake = new Intake(fd, this.#port, (one) => listenForArrivals(one, { onArrival }));
  }

  /** Connected, so far as its kernel knows. */
  async connect(): Promise<net.Socket> {
    const client = net.connect({ port: this.#port, host: '127.0.0.1' });
    this.#clients.push(client.on('error', () => {}));
    await once(client, 'connect');
    return client;
  }

  async arrivals(count: number): Promise<void> {
    await until(`${count} have arrived`, () => this.arrived.length >= count);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const client of this.#clients) client.destroy();
    for (const arrival of this.arrived) arrival.close();
    this.intake.close();
    await nextTurn();
  }
}

test('who comes while a listener rests is connected, and accepted when it goes on', bounded, async () => {
  await using world = new World();
  await world.connect();
  await world.arrivals(1);
  for (let round = 1; round <= 3; round++) {
    world.intake.rest();
    world.intake.rest();
    assert.equal(world.intake.isResting, true);
    await world.connect();
    for (let turns = 0; turns < 20; turns++) await nextTurn();
    assert.equal(world.arrived.length, round);
    assert.equal(world.intake.goOn(), true);
    assert.equal(world.intake.isResting, false);
    await world.arrivals(round + 1);
  }
});

test('the queue of a listener that rests can be given away', bounded, async () => {
  await using world = new World();
  world.intake.rest();
  await world.connect();
  const fd = world.intake.duplicate();
  world.intake.close();

  const heir = Promise.withResolvers<Arrival>();
  const server = listenForArrivals(fd, { onArrival: heir.resolve });
  (await heir.promise).close();
  server.close();
});

test('a listener that is closed at rest is closed: nobody connects to it', bounded, async () => {
  await using world = new World();
  world.intake.rest();
  world.intake.close();
  await nextTurn();
  await assert.rejects(world.connect(), { code: 'ECONNREFUSED' });
  assert.equal(world.intake.goOn(), true);
  assert.throws(() => closeFd(world.intake.duplicate()), { code: 'CV-SYS' });
});
