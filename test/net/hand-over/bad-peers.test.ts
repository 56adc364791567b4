import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  chownSync,
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import type net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import process from 'node:process';
import { test } from 'node:test';
import { Heir } from '../../../src/agent/hand-over/heir.ts';
import { NodeLease } from '../../../src/agent/hand-over/lease.ts';
import { HandOverLink } from '../../../src/agent/hand-over/link.ts';
import { Predecessors } from '../../../src/agent/hand-over/predecessors.ts';
import {
  encode,
  OFFER_TIMEOUT_MS,
  SEND_TIMEOUT_MS,
  SILENCE_TIMEOUT_MS,
} from '../../../src/agent/hand-over/protocol.ts';
import type { Clock } from '../../../src/base/clock.ts';
import { MeshError } from '../../../src/base/errors.ts';
import { type InheritedConnection, NO_NEEDS } from '../../../src/proxy/inheritance.ts';
import { closeFd, duplicate } from '../../../src/sys/duplicate.ts';
import { linuxSys } from '../../../src/sys/linux.ts';
import { takeRunLock } from '../../../src/sys/run-lock.ts';
import { systemClock } from '../../../src/sys/system-clock.ts';
import { socketFd } from '../../../src/sys/tcp.ts';
import type { UnixListener, UnixSocket } from '../../../src/sys/unix-contract.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { skipWithoutRoot } from '../../support/netns.ts';
import { tcpPair } from '../../support/tcp.ts';
import { GivingNode, HELLO, hear, POD, say } from './giving-node.ts';

const timed = { timeout: 90_000 };

/** A stream of which that much is under way to the application at `socket`; with a descriptor of its own. */
function suspended(socket: net.Socket, toApp: Uint8Array): InheritedConnection {
  const ends = { src: { ip: '192.0.2.1', port: 1 }, dst: { ip: '192.0.2.2', port: 2 } };
  const labels = { reporter: 'destination', securityPolicy: 'unknown' } as const;
  const wayBack = { kind: 'wait', question: { authority: '192.0.2.2:2' } } as const;
  return {
    start: { id: 'a', podUid: POD.uid, direction: 'inbound', protocol: 'HBONE', ...ends, labels },
    socket: duplicate(socketFd(socket) ?? -1),
    tunnel: { token: '0'.repeat(32), wayBack, toApp, toTunnel: new Uint8Array(0) },
    pausedAtMs: 0,
  };
}

/** Lets time pass for `clock`, as long as `is` does not hold. */
async function passing(clock: FakeClock, stepMs: number, is: () => boolean): Promise<void> {
  while (!is()) {
    clock.advance(stepMs);
    await new Promise(setImmediate);
  }
}

test('a successor that never accepts an offer loses it in time, and the next one is served', timed, async () => {
  await using node = await GivingNode.start();
  const silent = node.connect();
  await say(silent, HELLO);
  await say(silent, { type: 'take', pod: node.key });
  assert.deepEqual([await hear(silent), await hear(silent), await hear(silent)], ['welcome', 'listener', 'offered']);
  const queued = node.answer();
  // The wait for it begins a moment after the offer was sent.
  const gone = hear(silent);
  while (node.starts.length < 2) {
    node.clock.advance(OFFER_TIMEOUT_MS);
    await new Promise(setImmediate);
  }
  assert.equal(await gone, 'end');
  assert.equal(node.starts[1]?.listeners.length, 1);
  assert.equal(await queued, 'old');
  using next = await Heir.greet(new HandOverLink(node.connect(), systemClock), systemClock, 'test');
  assert.deepEqual(next.counts, { moved: 0, streams: 0, held: 0, longestPauseMs: 0 });
});

test('a successor that stops reading in the middle of an offer loses it in time', timed, async () => {
  await using node = await GivingNode.start();
  await using pair = await tcpPair();
  // More than its socket takes before anybody reads.
  node.departures.push({ connections: [suspended(pair.near, Buffer.alloc(4 * 1024 * 1024))], isLast: true });
  const silent = node.connect();
  await say(silent, HELLO);
  await say(silent, { type: 'take', pod: node.key });
  await say(silent, { type: 'accept', pod: node.key });
  const said = [await hear(silent), await hear(silent), await hear(silent), await hear(silent)];
  assert.deepEqual(said, ['welcome', 'listener', 'offered', 'given']);
  await say(silent, { type: 'more', pod: node.key });
  while (node.departures.length > 0) await new Promise(setImmediate);

  await passing(node.clock, SEND_TIMEOUT_MS, () => node.starts.length > 1);

  assert.deepEqual([node.starts[1]?.connections.length, node.results], [1, ['lost']]);
  assert.equal(await node.answer(), 'old');
});

test('a successor that connects and never speaks keeps the next one waiting, and nobody else', timed, async () => {
  await using node = await GivingNode.start();
  const silent = node.connect();
  const gone = hear(silent);
  const next = Heir.greet(new HandOverLink(node.connect(), systemClock), systemClock, 'test');
  assert.equal(await node.answer(), 'old');

  await passing(node.clock, SILENCE_TIMEOUT_MS, () => node.results.length > 0);

  assert.equal(await gone, 'end');
  using heir = await next;
  assert.equal((await heir.take(node.key)).listeners.length, 1);
  assert.deepEqual([node.results, node.starts.length], [['refused'], 1]);
});

test('a successor that falls silent once it has a pod gives it back', timed, async () => {
  await using node = await GivingNode.start();
  const silent = node.connect();
  await say(silent, HELLO);
  await say(silent, { type: 'take', pod: node.key });
  await say(silent, { type: 'accept', pod: node.key });
  const said = [await hear(silent), await hear(silent), await hear(silent), await hear(silent)];
  assert.deepEqual(said, ['welcome', 'listener', 'offered', 'given']);

  await passing(node.clock, SILENCE_TIMEOUT_MS, () => node.starts.length > 1);

  assert.equal(await hear(silent), 'end');
  assert.equal(await node.answer(), 'old');
  assert.deepEqual([node.hasLeft, node.results], [false, ['lost']]);
});

test('a successor of another user is sent away, and the agent serves on', timed, async () => {
  await using node = await GivingNode.start((process.getuid?.() ?? 0) + 1);
  const stranger = node.connect();
  assert.equal(await hear(stranger), 'end');
  assert.equal(await node.answer(), 'old');
  assert.deepEqual([node.results, node.starts.length], [['refused'], 1]);
});

for (const [name, first] of [
  ['something that is no agent', new TextEncoder().encode('GET / HTTP/1.1\r\n\r\n')],
  ['an agent of another time', encode({ ...HELLO, min: 7, max: 9 })],
] as const) {
  test(`${name} is sent away and the agent serves on`, timed, async () => {
    await using node = await GivingNode.start();
    const stranger = node.connect();
    await stranger.send(first);
    let said = await hear(stranger);
    if (said === 'refused') said = await hear(stranger);
    assert.equal(said, 'end');
    assert.equal(await node.answer(), 'old');
    assert.equal(node.starts.length, 1);
  });
}

const lease = (folder: string, isTakeOver: boolean, clock: Clock = systemClock): Promise<NodeLease> =>
  NodeLease.take({ runDir: folder, isTakeOver, build: 'test' }, { sys: linuxSys, clock, log: {} });

function refusedFor(part: string): (error: unknown) => boolean {
  return (error) => error instanceof MeshError && error.code === 'CV-HAND-OVER' && error.message.includes(part);
}

test('a running agent that cannot be asked is an error that says why', timed, async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'culvert-hand-over-'));
  t.after(() => rmSync(folder, { recursive: true }));
  using _lock = takeRunLock(folder);
  const path = join(folder, 'hand-over.sock');
  await assert.rejects(lease(folder, false), { code: 'CV-AGENT-RUNNING' });
  await assert.rejects(lease(folder, true), refusedFor('there is none'));
  const gone = linuxSys.listenUnix(path, { type: 'stream' });
  await assert.rejects(lease(folder, true), refusedFor('EPROTOTYPE'));
  gone[Symbol.dispose]();
  writeFileSync(path, '');
  await assert.rejects(lease(folder, true), refusedFor('ECONNREFUSED'));
});

test('a hand-over socket of another user is not spoken to', { ...timed, skip: skipWithoutRoot }, async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'culvert-hand-over-'));
  t.after(() => rmSync(folder, { recursive: true }));
  using _lock = takeRunLock(folder);
  using listener = linuxSys.listenUnix(join(folder, 'hand-over.sock'), { type: 'seqpacket' });
  chownSync(listener.path, 65_534, 65_534);
  await assert.rejects(lease(folder, true), refusedFor('belongs to user 65534'));
});

test('a hand-over socket on which another user listens is not spoken to', {
  ...timed,
  skip: skipWithoutRoot,
}, async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'culvert-hand-over-'));
  t.after(() => rmSync(folder, { recursive: true }));
  chmodSync(folder, 0o777);
  using _lock = takeRunLock(folder);
  process.seteuid?.(65_534);
  let listener: UnixListener;
  try {
    listener = linuxSys.listenUnix(join(folder, 'hand-over.sock'), { type: 'seqpacket' });
  } finally {
    process.seteuid?.(0);
  }
  using _listener = listener;
  // The file says nothing of who is behind it.
  chownSync(listener.path, 0, 0);
  await assert.rejects(lease(folder, true), refusedFor('user 65534 listens there'));
});

for (const [name, answer, why] of [
  ['something that is no agent', (socket: UnixSocket) => socket.send(Buffer.from('220 ready')), 'is not an agent'],
  ['something that never answers', async () => {}, 'said nothing for 60 s'],
  ['an agent that refuses', (socket: UnixSocket) => socket.send(encode({ type: 'refused', reason: 'no' })), 'no'],
] as const) {
  test(`where ${name} has the node, the start fails and says so`, timed, async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'culvert-hand-over-'));
    t.after(() => rmSync(folder, { recursive: true }));
    using _lock = takeRunLock(folder);
    using listener = linuxSys.listenUnix(join(folder, 'hand-over.sock'), { type: 'seqpacket' });
    const clock = new FakeClock();
    let isOver = false;
    const taken = lease(folder, true, clock).finally(() => (isOver = true));
    const refused = assert.rejects(taken, refusedFor(why));
    using socket = await listener.accept();
    assert.ok(socket !== undefined);
    await answer(socket);

    await passing(clock, 1_000, () => isOver);

    await refused;
  });
}

test('a pod that is asked for twice was taken once, and the hand-over goes on', timed, async () => {
  await using node = await GivingNode.start();
  using taking = await lease(node.folder, true);
  const { listeners } = await taking.inherit(node.key);
  assert.equal(listeners.length, 1);
  assert.deepEqual((await taking.inherit(node.key)).listeners, []);
  for (const { fd } of listeners) closeFd(fd);
  assert.equal(await taking.settle(Promise.resolve()), 'complete');
  assert.deepEqual(node.results, ['complete']);
});

test('a socket that an agent left behind when it was killed is no obstacle to the next one', timed, async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'culvert-hand-over-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const path = join(folder, 'hand-over.sock');
  const { exited } = await leaveSocket(path);
  assert.equal(exited, 'SIGKILL');
  assert.ok(existsSync(path));

  using _lease = await lease(folder, true);

  using listener = linuxSys.listenUnix(path, { type: 'seqpacket' });
  using _client = linuxSys.connectUnix(path, 'seqpacket');
  using accepted = await listener.accept();
  assert.ok(accepted !== undefined);
});

/** A process that listens at `path` is killed. */
async function leaveSocket(path: string): Promise<{ readonly exited: string }> {
  const server = `require('node:net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 'SIGKILL'))`;
  const child = spawn(process.execPath, ['-e', server], { stdio: 'ignore' });
  const [, signal] = await once(child, 'close');
  return { exited: String(signal) };
}

test(
  'a pod that the agent got after its successor had asked for it is served once, also when that one is lost',
  timed,
  async () => {
    await using node = await GivingNode.start();
    const late = { uid: 'p2' };
    const successor = node.connect();
    await say(successor, HELLO);
    await say(successor, { type: 'take', pod: node.keyOf(late) });
    await say(successor, { type: 'accept', pod: node.keyOf(late) });
    assert.deepEqual(
      [await hear(successor), await hear(successor), await hear(successor)],
      ['welcome', 'offered', 'given'],
    );
    await node.serve(late);

    successor[Symbol.dispose]();
    using _next = await Heir.greet(new HandOverLink(node.connect(), systemClock), systemClock, 'test');

    assert.deepEqual([node.results, node.starts.length], [['lost'], 2]);
  },
);

test(
  'a pod that leaves while it is taken back from a successor that was lost is not served after that',
  timed,
  async () => {
    await using node = await GivingNode.start();
    const heir = await Heir.greet(new HandOverLink(node.connect(), systemClock), systemClock, 'test');
    const { listeners } = await heir.take(node.key);
    for (const { fd } of listeners) closeFd(fd);
    const { promise: ready, resolve } = Promise.withResolvers<void>();
    node.ready = ready;
    heir[Symbol.dispose]();
    while (node.results.length === 0) await new Promise(setImmediate);

    await node.stopPod();
    resolve();
    using _next = await Heir.greet(new HandOverLink(node.connect(), systemClock), systemClock, 'test');

    assert.equal(node.starts.length, 2);
    await assert.rejects(node.answer(), { code: 'ECONNREFUSED' });
  },
);

test('clients that look for more streams than fit at once are told to ask again', timed, async () => {
  await using node = await GivingNode.start();
  using taking = await lease(node.folder, true);
  const { listeners } = await taking.inherit(node.key);
  await taking.follow(node.key, { warm: async () => {}, adopt: async () => {} }, NO_NEEDS);
  const question = { authority: '192.0.2.2:2', peerIdentity: 'spiffe://cluster.local/ns/default/sa/client' };
  const claim = { podUid: 'p1', token: '0'.repeat(32), question };

  const found = await Promise.all(Array.from({ length: 500 }, () => taking.claim(node.key, claim)));

  assert.equal(node.asked.length, 64);
  assert.deepEqual(new Set(found), new Set(['later']));
  assert.equal(await taking.claim(node.key, claim), 'later');
  assert.equal(node.asked.length, 65);
  for (const { fd } of listeners) closeFd(fd);
});

const HELD = { start: {}, pausedAtMs: 0 };
/** What another agent answers, with how many descriptors each. */
const WRONG: readonly (readonly [string, ...(readonly [reply: object, descriptors: number])[]])[] = [
  ['two descriptors for one listener', [{ type: 'listener', port: 1 }, 2]],
  ['no descriptor for a listener', [{ type: 'listener', port: 1 }, 0]],
  ['a connection with one socket', [{ type: 'connections', connections: [HELD] }, 1]],
  ['a socket too many', [{ type: 'connections', connections: [HELD] }, 3]],
  [
    'fewer connections than it says',
    [{ type: 'connections', connections: [HELD] }, 2],
    [{ type: 'offered', listeners: 0, connections: 2 }, 0],
  ],
  ['a descriptor with the end of an offer', [{ type: 'offered', listeners: 0, connections: 0 }, 1]],
  ['a run lock instead of an offer', [{ type: 'listener', port: 1 }, 1], [{ type: 'left', held: 0 }, 1]],
  [
    'connections instead of the end',
    [{ type: 'offered', listeners: 0, connections: 0 }, 0],
    [{ type: 'connections', connections: [HELD] }, 2],
  ],
  ['what cannot be understood', [{ type: 'listener', port: 1 }, 1], [{ type: 'nothing' }, 1]],
];

/** An open file that can be told from all others by its name. */
class Marked implements Disposable {
  readonly #folder = mkdtempSync(join(tmpdir(), 'culvert-marked-'));
  readonly #path = join(this.#folder, 'file');
  readonly #fd: number;

  constructor() {
    writeFileSync(this.#path, '');
    this.#fd = openSync(this.#path, 'r');
  }

  times(count: number): readonly number[] {
    return Array.from({ length: count }, () => this.#fd);
  }

  /** Descriptors of it beside its own. */
  get others(): number {
    const names = readdirSync('/proc/self/fd').map((fd) => readlinkOf(`/proc/self/fd/${fd}`));
    return names.filter((name) => name === this.#path).length - 1;
  }

  [Symbol.dispose](): void {
    closeSync(this.#fd);
    rmSync(this.#folder, { recursive: true });
  }
}

function readlinkOf(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    // That of the folder being read.
    return '';
  }
}

for (const [what, ...replies] of WRONG) {
  test(`an agent that answers with ${what} has left nothing open, whichever way it was asked`, timed, async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'culvert-hand-over-'));
    t.after(() => rmSync(folder, { recursive: true }));
    using listener = linuxSys.listenUnix(join(folder, 'hand-over.sock'), { type: 'seqpacket' });
    using marked = new Marked();
    const send = async (socket: UnixSocket): Promise<void> => {
      for (const [reply, count] of replies) {
        await socket.send(new TextEncoder().encode(JSON.stringify(reply)), marked.times(count));
      }
    };
    for (const ask of [
      (heir: Heir) => heir.take('p'),
      (heir: Heir) => heir.inherit(),
      (heir: Heir) => heir.yieldServers(),
    ]) {
      using near = linuxSys.connectUnix(listener.path, 'seqpacket');
      using far = await listener.accept();
      assert.ok(far !== undefined);
      await far.send(encode({ type: 'welcome', version: 3, build: 'test', pid: 1 }));
      using heir = await Heir.greet(new HandOverLink(near, systemClock), systemClock, 'test');
      const asked = assert.rejects(ask(heir), MeshError);
      await send(far);
      await asked;
      assert.equal(marked.others, 0);
    }
    using near = linuxSys.connectUnix(listener.path, 'seqpacket');
    using far = await listener.accept();
    assert.ok(far !== undefined);
    using predecessors = new Predecessors(new HandOverLink(near, systemClock), {
      clock: systemClock,
      log: {},
      canClaim: true,
    });
    const question = { authority: '192.0.2.2:2', peerIdentity: 'spiffe://cluster.local/ns/default/sa/client' };
    const claim = { podUid: 'p1', token: '0'.repeat(32), question };
    const claimed = predecessors.claim('p', claim);
    await send(far);
    // Whoever waits for an answer of this one must not get that of another.
    assert.equal(await claimed, 'later');
    while ((await predecessors.claim('p', claim)) !== 'nowhere') await new Promise(setImmediate);
    assert.equal(marked.others, 0);
  });
}
