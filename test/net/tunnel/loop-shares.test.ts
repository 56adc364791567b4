import assert from 'node:assert/strict';
import { once } from 'node:events';
import net from 'node:net';
import { Duplex } from 'node:stream';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { linuxSys } from '../../../src/sys/linux.ts';
import type { LoopTime } from '../../../src/sys/loop-time.ts';
import { systemClock } from '../../../src/sys/system-clock.ts';
import { listenOn } from '../../../src/sys/tcp.ts';
import { H2Output } from '../../../src/tunnel/h2-output.ts';
import type { LoopShare } from '../../../src/tunnel/loop-share.ts';
import { LoopShares } from '../../../src/tunnel/loop-shares.ts';
import { SocketStream } from '../../../src/tunnel/socket-stream.ts';
import { FakeClock } from '../../support/fake-clock.ts';

const LIMITS = { quantumMs: 0.5, recentMs: 50 } as const;
const PAYLOAD = Buffer.alloc(512, 7);

/** Time that passes only when a test says that work was done. */
class WorkTime implements LoopTime {
  #nowMs = 0;

  nowMs(): number {
    return this.#nowMs;
  }

  idleMs(): number {
    return 0;
  }

  work(ms: number): void {
    this.#nowMs += ms;
  }
}

class World implements AsyncDisposable {
  readonly time = new WorkTime();
  readonly loop: LoopShares;
  readonly #undo = new AsyncDisposableStack();
  readonly #isLending: boolean;

  constructor(isLending: boolean, hasTurns = true) {
    this.#isLending = isLending;
    this.loop = new LoopShares({ time: this.time, clock: systemClock }, hasTurns ? LIMITS : undefined);
  }

  /** A connection of `share` whose accepted end is a `SocketStream`. */
  async connection(share: LoopShare): Promise<{ readonly client: net.Socket; readonly stream: SocketStream }> {
    const { fd } = linuxSys.listenTcp(undefined, { address: '127.0.0.1', port: 0, backlog: 1 });
    const accepted = Promise.withResolvers<net.Socket>();
    const server = listenOn(fd, { onConnection: accepted.resolve, isLending: this.#isLending });
    const { port } = server.address() as net.AddressInfo;
    const client = net.connect({ port, host: '127.0.0.1', allowHalfOpen: true });
    client.on('error', () => {});
    const socket = await accepted.promise;
    this.#undo.defer(async () => {
      client.destroy();
      socket.destroy();
      server.close();
      await once(server, 'close');
    });
    return { client, stream: new SocketStream(socket, share) };
  }

  /** What it reads takes so long and is sent back; `onServed` is told each time. */
  echo(stream: SocketStream, workMs: number, onServed: () => void): void {
    stream.open({
      onData: (chunk) => {
        this.time.work(workMs);
        onServed();
        stream.write(chunk, stream.isLending);
      },
      onEnd: () => stream.end(),
      onDrain: () => {},
      onClose: () => {},
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#undo.disposeAsync();
  }
}

/** Resolves when `count` answers of PAYLOAD have come, one asked for after the other. */
async function askTimes(client: net.Socket, count: number): Promise<void> {
  let received = 0;
  const done = Promise.withResolvers<void>();
  client.on('data', (chunk: Buffer) => {
    received += chunk.length;
    if (received >= count * PAYLOAD.length) done.resolve();
    else if (received % PAYLOAD.length === 0) client.write(PAYLOAD);
  });
  client.write(PAYLOAD);
  await done.promise;
}

const GREEDY_SOCKETS = 20;
const ASKED = 100;

/** How often a workload with 20 busy sockets is served for each time that one with one socket is. */
async function greedyPerModest(isLending: boolean, hasTurns: boolean): Promise<number> {
  await using world = new World(isLending, hasTurns);
  const [greedy, modest] = [world.loop.open(), world.loop.open()];
  let served = 0;
  for (let i = 0; i < GREEDY_SOCKETS; i++) {
    const { client, stream } = await world.connection(greedy);
    world.echo(stream, 0.2, () => (served += 1));
    client.on('data', () => client.write(PAYLOAD));
    client.write(PAYLOAD);
  }
  const { client, stream } = await world.connection(modest);
  world.echo(stream, 0.01, () => {});
  served = 0;
  await askTimes(client, ASKED);
  assert.ok(greedy.busyMs > modest.busyMs);
  assert.equal(modest.holds, 0);
  return served / ASKED;
}

for (const isLending of [true, false]) {
  const kind = isLending ? 'lending' : 'ordinary';

  test(`a workload with twenty busy ${kind} sockets takes turns with one that has a single one`, async (t) => {
    const alone = await greedyPerModest(isLending, false);
    const inTurn = await greedyPerModest(isLending, true);
    t.diagnostic(`served so often for each time the other is: ${alone} without turns, ${inTurn} with them`);
    assert.ok(inTurn < alone / 2);
  });

  test(`nothing that ${kind} sockets read is lost, doubled or overtaken between turns, nor its end`, async () => {
    await using world = new World(isLending);
    const [greedy, modest] = [world.loop.open(), world.loop.open()];
    const other = await world.connection(modest);
    world.echo(other.stream, 0.4, () => {});
    const asked = askTimes(other.client, 200);
    const sent = Buffer.from(Array.from({ length: 300_000 }, (_, at) => at % 251));
    const all = await Promise.all(
      Array.from({ length: 8 }, async () => {
        const { client, stream } = await world.connection(greedy);
        world.echo(stream, 0.4, () => {});
        const chunks: Buffer[] = [];
        client.on('data', (chunk: Buffer) => chunks.push(chunk));
        for (let at = 0; at < sent.length; at += 1_000) client.write(sent.subarray(at, at + 1_000));
        client.end();
        await once(client, 'end');
        return Buffer.concat(chunks);
      }),
    );
    await asked;
    for (const received of all) assert.ok(received.equals(sent));
    assert.ok(greedy.holds > 0);
  });
}

test('a workload that is alone never waits', async () => {
  await using world = new World(true);
  const share = world.loop.open();
  const connections = await Promise.all(Array.from({ length: 5 }, () => world.connection(share)));
  for (const { stream } of connections) world.echo(stream, 3, () => {});
  await Promise.all(connections.map(({ client }) => askTimes(client, 20)));
  assert.equal(share.holds, 0);
  assert.equal(Math.round(share.busyMs / 3) >= 99, true, `${share.busyMs} ms`);
});

test('what a relay paused stays paused when its turn comes', async () => {
  await using world = new World(true);
  const [greedy, modest] = [world.loop.open(), world.loop.open()];
  const { client, stream } = await world.connection(greedy);
  let chunks = 0;
  stream.open({
    onData: () => {
      chunks += 1;
      world.time.work(2);
      stream.pause();
    },
    onEnd: () => {},
    onDrain: () => {},
    onClose: () => {},
  });
  const other = await world.connection(modest);
  world.echo(other.stream, 0.1, () => {});
  await askTimes(other.client, 1);
  client.write(PAYLOAD);
  while (chunks === 0) await nextTurn();
  client.write(PAYLOAD);
  await askTimes(other.client, 50);
  assert.equal(chunks, 1);
  assert.equal(greedy.holds, 1);
  stream.resume();
  while (chunks === 1) await nextTurn();
});

for (const hasTurns of [true, false]) {
  const how = hasTurns ? 'with' : 'without';
  test(`a loop that never sleeps remembers the sockets of one turn and no more, ${how} turns`, () => {
    const world = new World(true, hasTurns);
    const [busy, other] = [world.loop.open(), world.loop.open()];
    let stopped = 0;
    for (let i = 0; i < 1_000; i++) {
      busy.enterFor({ turn: -1, isHeld: false, hold: () => (stopped += 1), release: () => {} }, 0);
      world.time.work(0.1);
    }
    // Now its turn ends, for the other or for its own bound.
    busy.limit({ bufferedBytes: 1, loopShare: hasTurns ? 1 : 0.01 });
    other.enter();
    busy.enter();
    world.time.work(5);
    other.enter();
    assert.equal(busy.isHeld, true);
    assert.ok(stopped <= 10, `${stopped} sockets were remembered`);
    busy.close();
  });
}

/** A workload whose turn is over, and the other one that wants the loop. */
function heldShare(): { readonly held: LoopShare; readonly other: LoopShare; readonly world: World } {
  const world = new World(true);
  const [held, other] = [world.loop.open(), world.loop.open()];
  other.enter();
  world.time.work(0.1);
  held.enter();
  world.time.work(5);
  other.enter();
  return { held, other, world };
}

test('new work of a workload whose turn is over waits, in the order it came, and others do not', async () => {
  const { held, other } = heldShare();
  const order: number[] = [];
  const waiting = [1, 2, 3].map(async (number) => {
    await (held.turn() ?? assert.fail('it may begin at once'));
    order.push(number);
  });
  assert.equal(other.turn(), undefined);
  await Promise.all(waiting);
  assert.deepEqual(order, [1, 2, 3]);
});

test('what has begun goes on before anything new begins, and leaves with the workload as that does', async () => {
  const { held } = heldShare();
  const order: string[] = [];
  const wait = async (name: string, turn: Promise<void> | undefined): Promise<void> => {
    await (turn ?? assert.fail('it may go on at once'));
    order.push(name);
  };
  await Promise.all([
    wait('new 1', held.turn()),
    wait('new 2', held.turn()),
    wait('begun 1', held.turnAgain()),
    wait('begun 2', held.turnAgain()),
  ]);
  assert.deepEqual(order, ['begun 1', 'begun 2', 'new 1', 'new 2']);

  const gone = heldShare().held;
  const waiting = gone.turnAgain() ?? assert.fail('it may go on at once');
  gone.close();
  await waiting;
});

test('answers for many that come at once are dealt with in as many turns as they need', async () => {
  const { held, other, world } = heldShare();
  const turns = new Set<number>();
  const answer = Promise.withResolvers<void>();
  const pieces = Array.from({ length: 10 }, async () => {
    await answer.promise;
    await held.turnAgain();
    turns.add(world.loop.turn);
    world.time.work(0.7);
    other.enter();
  });
  answer.resolve();
  await Promise.all(pieces);
  assert.equal(turns.size, 10);
});

test('of new work that takes longer than a turn one piece begins per turn', async () => {
  const { held, other, world } = heldShare();
  const turns = new Set<number>();
  const pieces = Array.from({ length: 10 }, async () => {
    await held.turn();
    turns.add(world.loop.turn);
    world.time.work(0.7);
    other.enter();
  });
  await Promise.all(pieces);
  assert.equal(turns.size, 10);
});

test('new work is refused when too much waits, and whoever waits is let go when the workload leaves', async () => {
  const { held } = heldShare();
  const waiting = Array.from({ length: 2_048 }, () => held.turn() ?? assert.fail('it may begin at once'));
  await assert.rejects(held.turn() ?? Promise.resolve(), { code: 'CV-BUDGET-QUEUE' });
  held.close();
  await Promise.all(waiting);
});

test('time is charged to who used it: promises to who began them, reading to who read, sleep to nobody', () => {
  let [nowMs, idleMs] = [0, 0];
  const loop = new LoopShares({ time: { nowMs: () => nowMs, idleMs: () => idleMs }, clock: systemClock }, LIMITS);
  const [one, other] = [loop.open(), loop.open()];
  one.enter();
  nowMs += 3;
  // Of the 3 ms before it was called, 1 was its own reading.
  other.enter(1);
  nowMs += 10;
  idleMs += 8;
  loop.nobody();
  nowMs += 5;
  one.enter(2);
  assert.deepEqual([one.busyMs, other.busyMs], [2 + 2, 1 + 2]);
});

test('a thread that goes last gives way between pieces of work, and what others took of the CPU is nobody’s', () => {
  let [nowMs, ways] = [0, 0];
  const giveWay = (): void => {
    ways += 1;
    nowMs += 4;
  };
  const loop = new LoopShares({ time: { nowMs: () => nowMs, idleMs: () => 0, giveWay }, clock: systemClock }, LIMITS);
  const [one, other] = [loop.open(), loop.open()];
  one.enter();
  for (const ms of [0.05, 0.1, 0.05, 0.1]) {
    nowMs += ms;
    one.enter();
  }
  assert.equal(ways, 2);
  nowMs += 0.05;
  one.leave();
  nowMs += 0.06;
  other.enter();
  assert.equal(ways, 3);
  assert.ok(Math.abs(one.busyMs - 0.37) < 1e-9, `${one.busyMs} ms`);
  assert.equal(other.busyMs, 0);
});

test('what runs after a callback has returned is charged to nobody, or to whoever is expected to be worked for', () => {
  let nowMs = 0;
  const loop = new LoopShares({ time: { nowMs: () => nowMs, idleMs: () => 0 }, clock: systemClock }, LIMITS);
  const [one, other] = [loop.open(), loop.open()];
  const work = (): void => {
    one.enter();
    nowMs += 0.1;
    one.leave();
    nowMs += 2;
    loop.nobody();
  };
  work();
  assert.ok(one.busyMs >= 0.1 && one.busyMs < 0.2, `${one.busyMs} ms`);
  assert.equal(one.isHeld, false);
  other.expect(1.5);
  work();
  assert.equal(other.busyMs, 1.5);
  work();
  assert.equal(other.busyMs, 1.5);
  assert.ok(one.busyMs < 0.6);
});

test('what runs after a write of a session has failed is not charged to whose session it was', async () => {
  const time = new WorkTime();
  const loop = new LoopShares({ time, clock: new FakeClock() }, LIMITS);
  const share = loop.open();
  const socket = new Duplex({ read() {}, write: (_chunk, _encoding, done) => done(new Error('broken')) });
  socket.on('error', () => {});
  const output = new H2Output(socket, { fill() {}, flushed() {} }, share);
  output.control(new Uint8Array(9));
  await new Promise<void>((resolve) => socket.once('close', resolve));
  time.work(3);
  loop.nobody();
  assert.ok(share.busyMs < 1, `${share.busyMs} ms`);
});

test('nothing is expected for a workload that has gone', () => {
  let nowMs = 0;
  const loop = new LoopShares({ time: { nowMs: () => nowMs, idleMs: () => 0 }, clock: systemClock }, LIMITS);
  const [one, gone] = [loop.open(), loop.open()];
  gone.expect(1);
  gone.close();
  gone.expect(1);
  one.enter();
  one.leave();
  nowMs += 2;
  loop.nobody();
  assert.equal(gone.busyMs, 0);
});

test('a workload with a bounded share of time sleeps when it has used it, though it is alone, and goes on then', async () => {
  let nowMs = 0;
  const clock = new FakeClock();
  const loop = new LoopShares({ time: { nowMs: () => nowMs, idleMs: () => 0 }, clock }, LIMITS);
  const share = loop.open();
  share.limit({ bufferedBytes: 1, loopShare: 0.1 });
  share.enter();
  for (let i = 0; i < 2; i++) {
    nowMs += 4.5;
    share.enter();
  }
  assert.equal(share.isHeld, false);
  nowMs += 5;
  share.enter();
  assert.equal(share.isHeld, true);
  const order: string[] = [];
  const waiting = (share.turn() ?? assert.fail('it may begin at once')).then(() => order.push('went on'));
  // It may use 10 ms at once, and owes 3 after 14; half of another 10 comes on top, so that it does not wake for nothing.
  clock.advance(80);
  await nextTurn();
  assert.deepEqual(order, []);
  clock.advance(20);
  await waiting;
});

test('what a workload begins anew takes a tenth of a loop that others want, and all of one that is its own', () => {
  let nowMs = 0;
  const loop = new LoopShares({ time: { nowMs: () => nowMs, idleMs: () => 0 }, clock: new FakeClock() }, LIMITS);
  const flooded = loop.open();
  flooded.enter();
  for (let i = 0; i < 100; i++) assert.equal(flooded.begins(1), 0);

  loop.open().enter();
  flooded.enter();
  for (let i = 0; i < 2; i++) assert.equal(flooded.begins(0.1), 0);
  // It owes 0.1 ms, and half of the 0.3 ms comes on top that it may begin at once.
  assert.equal(flooded.begins(0.2).toFixed(3), '2.500');
  assert.equal(flooded.isHeld, false);
  nowMs += 2.5;
  assert.equal(flooded.begins(0.1), 0);

  nowMs += 1_000;
  for (let i = 0; i < 100; i++) assert.equal(flooded.begins(1), 0);
});

test('what begins anew in a thread that goes last takes a tenth of it, though nobody else wants it', () => {
  let nowMs = 0;
  const time = { nowMs: () => nowMs, idleMs: () => 0, giveWay: () => undefined };
  const flooded = new LoopShares({ time, clock: new FakeClock() }, LIMITS).open();
  flooded.enter();
  for (let i = 0; i < 2; i++) assert.equal(flooded.begins(0.1), 0);
  assert.equal(flooded.begins(0.2).toFixed(3), '2.500');
  nowMs += 2.5;
  assert.equal(flooded.begins(0.1), 0);
});

/** Held, and something new waits for its turn, after `pass` too, when the share may go on. */
async function afterWaiting(pass: (world: { nowMs: number; idleMs: number }) => void): Promise<void> {
  const world = { nowMs: 0, idleMs: 0 };
  const clock = new FakeClock();
  const loop = new LoopShares({ time: { nowMs: () => world.nowMs, idleMs: () => world.idleMs }, clock }, LIMITS);
  const share = loop.open();
  share.limit({ bufferedBytes: 1, loopShare: 0.01 });
  share.enter();
  world.nowMs += 5;
  share.enter();
  const waiting = share.turn() ?? assert.fail('it may begin at once');
  for (let i = 0; i < 6; i++) {
    pass(world);
    loop.nobody();
  }
  clock.advance(20_000);
  await waiting;
}

test('who has waited for its turn for 5 s is refused', async () => {
  const sleep = (world: { nowMs: number; idleMs: number }): void => {
    world.nowMs += 1_000;
    world.idleMs += 1_000;
  };
  await assert.rejects(afterWaiting(sleep), { code: 'CV-BUDGET-QUEUE' });
});

test('a loop that has no CPU for minutes makes nobody wait too long for its turn', async () => {
  await afterWaiting((world) => {
    world.nowMs += 60_000;
  });
});

test('who was at work when the loop lost its CPU for a minute owes nobody that minute', () => {
  const { time, loop } = new World(true);
  const [unlucky, other] = [loop.open(), loop.open()];
  other.enter();
  time.work(0.1);
  unlucky.enter();
  time.work(60_000);
  other.enter();
  assert.ok(unlucky.busyMs <= 5, `${unlucky.busyMs} ms`);
});
