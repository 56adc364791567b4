import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { MeshError } from '../../../src/base/errors.ts';
import { systemClock } from '../../../src/sys/system-clock.ts';
import type { ByteStreamHandlers } from '../../../src/tunnel/byte-stream.ts';
import type { H2Settings, PeerSettings } from '../../../src/tunnel/h2-settings.ts';
import type { H2Stream } from '../../../src/tunnel/h2-stream.ts';
import { type BytesUnderWay, ResumableStream } from '../../../src/tunnel/resumable-stream.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { type EnginePair, enginePair } from './h2-peers.ts';

const bounded = { timeout: 120_000 };
const PATIENCE_MS = 90_000;

async function until(holds: () => boolean): Promise<void> {
  const endMs = performance.now() + PATIENCE_MS;
  while (!holds()) {
    assert.ok(performance.now() < endMs, 'it never holds');
    await nextTurn();
  }
}

/** The byte at `position` of everything an end sends: what is lost, doubled or out of order shows. */
function byteAt(position: number): number {
  return (position * 31 + (position >> 8) * 7 + (position >> 16)) & 0xff;
}

function bytesFrom(position: number, count: number): Uint8Array {
  return Uint8Array.from({ length: count }, (_, at) => byteAt(position + at));
}

/** What has the near end of a stream: sends all it is to send, as fast as it may, and checks what comes. */
class End implements ByteStreamHandlers {
  readonly closed = Promise.withResolvers<MeshError | undefined>();
  stream: ResumableStream;
  sent = 0;
  received = 0;
  /** What the application has been told by all processes, as a socket tells it: of two ends in a row it sees one. */
  hasPeerEnded = false;
  detached = Promise.withResolvers<void>();
  readonly #total: number;
  readonly #chunkBytes: () => number;
  readonly #endsItself: boolean;
  #isScheduled = false;
  #mayWrite = true;
  #isHalted = false;

  /** `endsItself`: sends a chunk a turn, ends after the last, and does so again in each further process, as a socket would. */
  constructor(from: H2Stream, total: number, chunkBytes: () => number, endsItself = false) {
    this.#total = total;
    this.#chunkBytes = chunkBytes;
    this.#endsItself = endsItself;
    this.stream = this.#streamOf(from);
  }

  start(): void {
    this.stream.open(this);
    this.write();
  }

  write(): void {
    while (this.#mayWrite && !this.#isHalted && !this.#isScheduled && this.sent < this.#total) {
      const bytes = Math.min(this.#chunkBytes(), this.#total - this.sent);
      // Lent: what cannot go on is copied.
      const chunk = bytesFrom(this.sent, bytes);
      this.sent += bytes;
      this.#mayWrite = this.stream.write(chunk, true);
      chunk.fill(0);
      if (this.#endsItself) this.#writeLater();
    }
    if (this.#endsItself && !this.#isScheduled && !this.#isHalted && this.sent === this.#total) this.stream.end();
  }

  #writeLater(): void {
    this.#isScheduled = true;
    setImmediate(() => {
      this.#isScheduled = false;
      this.write();
    });
  }

  /** As a relay does before its sockets are given away. */
  async quiesce(): Promise<void> {
    this.#isHalted = true;
    this.stream.pause();
    await until(() => this.stream.bufferedBytes === 0);
  }

  goOn(): void {
    this.#isHalted = false;
    this.stream.resume();
    this.write();
  }

  /** Suspends, and goes on as another process would: with what is under way, and nothing else. */
  async move(): Promise<void> {
    assert.ok(await this.moveUnlessOver(), 'not suspended');
  }

  /** False: it ends where it is. */
  async moveUnlessOver(): Promise<boolean> {
    await this.quiesce();
    if (!(await this.stream.suspend(systemClock, PATIENCE_MS))) {
      this.goOn();
      return false;
    }
    this.stream = this.#streamOf(this.stream.take());
    this.#isHalted = false;
    this.#mayWrite = true;
    this.start();
    return true;
  }

  onData(chunk: Uint8Array): void {
    assert.equal(this.hasPeerEnded, false, 'bytes after the end');
    assert.deepEqual(new Uint8Array(chunk), bytesFrom(this.received, chunk.length), `at ${this.received}`);
    this.received += chunk.length;
  }

  onEnd(): void {
    this.hasPeerEnded = true;
  }

  onDrain(): void {
    this.#mayWrite = true;
    this.write();
  }

  onClose(error: MeshError | undefined): void {
    this.closed.resolve(error);
  }

  #streamOf(from: H2Stream | BytesUnderWay): ResumableStream {
    const owner = { streamDetached: () => this.detached.resolve(), streamClosed: () => {} };
    return new ResumableStream(owner, from);
  }
}

/** A stream between a client and a server, and tunnels for it to change between. */
class World implements AsyncDisposable {
  readonly client: End;
  readonly server: End;
  readonly #tunnels: readonly EnginePair[];
  #at = 0;

  private constructor(tunnels: readonly EnginePair[], [near, far]: readonly [H2Stream, H2Stream], make: MakeEnd) {
    this.#tunnels = tunnels;
    this.client = make(near);
    this.server = make(far);
  }

  static async start(make: MakeEnd, settings: Partial<H2Settings> = {}): Promise<World> {
    const tunnels = [await enginePair({ settings }, { settings }), await enginePair({ settings }, { settings })];
    return new World(tunnels, await streamOf(tunnels[0]), make);
  }

  async attach(): Promise<void> {
    this.#at += 1;
    const [near, far] = await streamOf(this.#tunnels[this.#at % this.#tunnels.length]);
    this.client.detached = Promise.withResolvers();
    this.server.detached = Promise.withResolvers();
    // The server first, as in life: the client knows by the answer.
    this.server.stream.attach(far);
    this.client.stream.attach(near);
  }

  forgetSuspend(): void {
    for (const { client, server } of this.#tunnels) {
      for (const { session } of [client, server]) (session.peerSettings as PeerSettings).canSuspend = false;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const tunnel of this.#tunnels) await tunnel[Symbol.asyncDispose]();
  }
}

type MakeEnd = (from: H2Stream) => End;

async function streamOf(tunnel: EnginePair | undefined): Promise<readonly [H2Stream, H2Stream]> {
  assert.ok(tunnel);
  const before = tunnel.server.streams.length;
  const near = tunnel.client.session.request({ authority: '10.0.0.1:80' });
  await until(() => tunnel.server.streams.length > before);
  const far = tunnel.server.streams.at(-1)?.stream;
  assert.ok(far);
  far.respond(200);
  await near.response;
  return [near, far];
}

/** Small numbers that repeat with the seed. */
function randomOf(seed: number): (below: number) => number {
  let state = seed + 1;
  return (below) => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    return (state >>> 8) % below;
  };
}

for (const [who, movers] of [
  ['its client', ['client']],
  ['its server', ['server']],
  ['one end after the other', ['client', 'server']],
  ['both ends at once', ['both']],
] as const) {
  test(`a stream that ${who} moves again and again loses, doubles and reorders nothing`, bounded, async () => {
    const TOTAL = 1024 * 1024;
    for (const seed of [1, 2]) {
      const random = randomOf(seed);
      await using world = await World.start((from) => new End(from, TOTAL, () => 1 + random(40_000)));
      const { client, server } = world;
      client.start();
      server.start();
      for (let round = 0; round < 6; round++) {
        for (let turns = random(6); turns > 0; turns--) await nextTurn();
        const mover = movers[round % movers.length];
        if (mover === 'both') await Promise.all([client.move(), server.move()]);
        else if (mover === 'client') await Promise.all([client.move(), server.detached.promise]);
        else await Promise.all([server.move(), client.detached.promise]);
        await world.attach();
      }
      await until(() => client.received === TOTAL && server.received === TOTAL);
      client.stream.end();
      server.stream.end();
      assert.deepEqual(await Promise.all([client.closed.promise, server.closed.promise]), [undefined, undefined]);
      assert.deepEqual([client.received, server.received], [TOTAL, TOTAL]);
    }
  });
}

test('what waits at an end that is stuck is delivered before what comes through the next tunnel', bounded, async () => {
  await using world = await World.start((from) => new End(from, 600_000, () => 10_000));
  const { client, server } = world;
  client.start();
  server.start();
  server.stream.pause();
  await client.move();
  await server.detached.promise;
  const before = server.received;
  assert.ok(before < 600_000);

  await world.attach();
  await until(() => client.sent === 600_000);
  assert.equal(server.received, before);
  server.stream.resume();

  await until(() => server.received === 600_000);
});

test(
  'an end that is stuck while its peer moves again and again gets all of it in order, and the end last',
  bounded,
  async () => {
    await using world = await World.start((from) => new End(from, 300_000, () => 10_000));
    const { client, server } = world;
    server.stream.pause();
    client.start();
    server.start();
    for (let round = 0; round < 3; round++) {
      await client.move();
      await server.detached.promise;
      await world.attach();
    }
    await until(() => client.sent === 300_000);
    client.stream.end();
    server.stream.end();
    await nextTurn();
    assert.deepEqual([server.received, server.hasPeerEnded], [0, false]);

    server.stream.resume();

    assert.deepEqual(await Promise.all([client.closed.promise, server.closed.promise]), [undefined, undefined]);
    assert.deepEqual([server.received, server.hasPeerEnded], [300_000, true]);
  },
);

test('an end that says its last word while the other suspends says it again in the next tunnel', bounded, async () => {
  await using world = await World.start((from) => new End(from, 1_000, () => 100));
  const { client, server } = world;
  client.start();
  server.start();
  await until(() => server.received === 1_000);

  // Crosses the wish to suspend.
  server.stream.end();
  await client.move();
  await server.detached.promise;
  assert.equal(client.hasPeerEnded, false);
  await world.attach();

  await until(() => client.hasPeerEnded);
  client.stream.end();
  assert.equal(await server.closed.promise, undefined);
});

test('an end whose peer has ended its half before suspends, and is not over', bounded, async () => {
  await using world = await World.start((from) => new End(from, 0, () => 1));
  const { client, server } = world;
  client.start();
  server.start();
  client.stream.end();
  await until(() => server.hasPeerEnded);

  await server.move();
  await client.detached.promise;
  await world.attach();

  server.stream.write(bytesFrom(0, 5));
  server.stream.end();
  assert.deepEqual(await Promise.all([client.closed.promise, server.closed.promise]), [undefined, undefined]);
  assert.equal(client.received, 5);
});

/** Who moves in one round. Resolves with false when the stream has ended instead. */
const MOVES = {
  client: async ({ client, server }: World) =>
    (await client.moveUnlessOver()) && (await server.detached.promise.then(() => true)),
  server: async ({ client, server }: World) =>
    (await server.moveUnlessOver()) && (await client.detached.promise.then(() => true)),
  both: async ({ client, server }: World) => {
    const [here, there] = await Promise.all([client.moveUnlessOver(), server.moveUnlessOver()]);
    assert.equal(here, there, 'one end goes on and the other does not');
    return here;
  },
};

for (const [which, clientBytes, serverBytes] of [
  ['client', 0, 60_000],
  ['client', 10_000, 60_000],
  ['server', 60_000, 0],
  ['server', 60_000, 10_000],
  ['client or the server', 30_000, 30_000],
] as const) {
  for (const [who, movers] of [
    ['its client moves', ['client']],
    ['its server moves', ['server']],
    ['one end moves after the other', ['server', 'client']],
    ['both move at once', ['both']],
    ['anybody moves', ['server', 'both', 'client']],
  ] as const) {
    test(
      `a half that the ${which} ends after ${Math.min(clientBytes, serverBytes)} bytes ends once, at that byte, while ${who}`,
      bounded,
      async () => {
        let rounds = 0;
        for (const seed of [1, 2]) {
          const random = randomOf(seed);
          const totals = [clientBytes, serverBytes];
          const make: MakeEnd = (from) => new End(from, totals.shift() ?? 0, () => 1 + random(2_000), true);
          await using world = await World.start(make);
          const { client, server } = world;
          client.start();
          server.start();
          for (let round = 0; ; round++, rounds++) {
            for (let turns = random(4); turns > 0; turns--) await nextTurn();
            if (!(await MOVES[movers[round % movers.length] ?? 'both'](world))) break;
            await world.attach();
          }
          assert.deepEqual(await Promise.all([client.closed.promise, server.closed.promise]), [undefined, undefined]);
          assert.deepEqual([client.received, server.received], [serverBytes, clientBytes]);
          assert.deepEqual([client.hasPeerEnded, server.hasPeerEnded], [true, true]);
        }
        assert.ok(rounds > 4, `${rounds} moves`);
      },
    );
  }
}

test(
  'a stream whose half has ended stays in its tunnel when the peer cannot be asked, and ends in it',
  bounded,
  async () => {
    await using world = await World.start((from) => new End(from, 0, () => 1));
    const { client, server } = world;
    client.start();
    server.start();
    // As from an agent that does not know of it.
    world.forgetSuspend();
    client.stream.end();

    assert.equal(client.stream.canLeave, false);
    assert.equal(await client.stream.suspend(systemClock, PATIENCE_MS), false);

    server.stream.write(bytesFrom(0, 5));
    server.stream.end();
    assert.deepEqual(await Promise.all([client.closed.promise, server.closed.promise]), [undefined, undefined]);
    assert.equal(client.received, 5);
  },
);

test(
  'a stream that both ends have ended does not leave, though its reader has not taken all of it',
  bounded,
  async () => {
    await using world = await World.start((from) => new End(from, 50_000, () => 10_000, true));
    const { client, server } = world;
    client.stream.pause();
    client.start();
    server.start();
    await until(() => server.hasPeerEnded && client.stream.canLeave === false);

    assert.equal(await client.moveUnlessOver(), false);

    assert.deepEqual(await Promise.all([client.closed.promise, server.closed.promise]), [undefined, undefined]);
    assert.deepEqual([client.received, client.hasPeerEnded], [50_000, true]);
  },
);

test('an end that is asked to leave before anybody listens at it leaves', bounded, async () => {
  await using tunnel = await enginePair();
  const [near, far] = await streamOf(tunnel);
  const server = new End(far, 5, () => 5, true);
  server.start();
  await until(() => near.hasRemoteEnd);
  const moved = server.move();
  await until(() => near.isAskedToSuspend);

  const client = new End(near, 0, () => 1);
  client.start();

  await Promise.all([moved, client.detached.promise]);
  assert.equal(client.received, 5);
});

test(
  'an end that does not leave when it is asked keeps the stream in its tunnel, and both end in it',
  bounded,
  async () => {
    await using tunnel = await enginePair();
    const [near, far] = await streamOf(tunnel);
    const clock = new FakeClock();
    const client = new End(near, 5, () => 5, true);
    client.start();
    await until(() => far.inboxBytes === 5 && far.hasRemoteEnd);
    await client.quiesce();

    const suspended = client.stream.suspend(clock, 500);
    clock.advance(500);
    assert.equal(await suspended, false);
    client.goOn();
    await until(() => far.isAskedToSuspend);
    far.write(bytesFrom(0, 3));
    far.end();
    far.resume();

    assert.equal(await client.closed.promise, undefined);
    assert.deepEqual([client.received, client.hasPeerEnded], [3, true]);
  },
);

test('when the peer is late the stream stays, and is detached as soon as the peer has stopped', bounded, async () => {
  await using tunnel = await enginePair();
  const [near, far] = await streamOf(tunnel);
  const clock = new FakeClock();
  const client = new End(near, 10, () => 10);
  client.start();
  await client.quiesce();

  const suspended = client.stream.suspend(clock, 500);
  clock.advance(500);
  assert.equal(await suspended, false);
  client.goOn();
  await until(() => far.hasRemoteEnd);
  far.end({ 'culvert-suspended': '0' });

  await client.detached.promise;
  assert.ok(client.stream.isDetached);
});

test('a stream that breaks while it is suspended says so, and is nobody else’s', bounded, async () => {
  await using world = await World.start((from) => new End(from, 10, () => 10));
  const { client, server } = world;
  client.start();
  server.start();
  await client.quiesce();
  server.stream.pause();

  const suspended = client.stream.suspend(systemClock, PATIENCE_MS);
  client.stream.destroy();

  assert.equal(await suspended, false);
  assert.equal(await client.closed.promise, undefined);
});

/** The reader at the server is stuck, so that the last word of the client, whose peer leaves, waits for a window. */
async function stuck(): Promise<World> {
  const world = await World.start((from) => new End(from, 300_000, () => 10_000), { streamWindowBytes: 65_535 });
  const { client, server } = world;
  server.stream.pause();
  client.start();
  server.start();
  await until(() => client.received > 0 && client.stream.bufferedBytes > 0);
  const clock = new FakeClock();
  const suspended = server.stream.suspend(clock, 500);
  await until(() => client.stream.isHalted);
  clock.advance(500);
  assert.equal(await suspended, false);
  return world;
}

test(
  'a stream is in its tunnel until its last word there is on its way, however long that takes',
  bounded,
  async () => {
    await using world = await stuck();
    const { client, server } = world;
    let isDetached = false;
    void client.detached.promise.then(() => (isDetached = true));
    for (let turns = 0; turns < 50; turns++) await nextTurn();
    assert.deepEqual([isDetached, client.stream.isDetached], [false, false]);

    server.stream.resume();

    await Promise.all([client.detached.promise, server.detached.promise]);
    await world.attach();
    await until(() => client.received === 300_000 && server.received === 300_000);
  },
);

test('a stream that is cut before its last word in a tunnel is on its way ends', bounded, async () => {
  await using world = await stuck();

  world.server.stream.destroy(new MeshError('CV-HOLD', 'held no longer'));

  assert.equal(await world.client.closed.promise, undefined);
});

for (const [what, trailers] of [
  ['with another count than its bytes', { 'culvert-suspended': '99' }],
  ['with rubbish for a count', { 'culvert-suspended': 'all' }],
] as const) {
  test(`a peer that suspends ${what} is cut`, bounded, async () => {
    await using tunnel = await enginePair();
    const [near, far] = await streamOf(tunnel);
    const client = new End(near, 0, () => 1);
    client.start();

    far.write(bytesFrom(0, 10));
    far.end(trailers);

    assert.notEqual(await client.closed.promise, undefined);
  });
}

test('trailers of somebody else are an ordinary end', bounded, async () => {
  await using tunnel = await enginePair();
  const [near, far] = await streamOf(tunnel);
  const client = new End(near, 0, () => 1);
  client.start();

  far.end({ 'grpc-status': '0' });
  await until(() => client.hasPeerEnded);

  client.stream.end();
  assert.equal(await client.closed.promise, undefined);
});

test('what is written while there is no tunnel is one chunk, which goes first in the next', bounded, async () => {
  await using world = await World.start((from) => new End(from, 0, () => 1));
  const { client, server } = world;
  client.start();
  server.start();
  await client.move();
  await server.detached.promise;

  assert.equal(server.stream.write(bytesFrom(0, 5)), false);
  await world.attach();

  await until(() => client.received === 5);
});
