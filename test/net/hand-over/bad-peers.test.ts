import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, chownSync, existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import process from 'node:process';
import { test } from 'node:test';
import { Heir } from '../../../src/agent/hand-over/heir.ts';
import { NodeLease } from '../../../src/agent/hand-over/lease.ts';
import { HandOverLink } from '../../../src/agent/hand-over/link.ts';
import { encode, OFFER_TIMEOUT_MS, SILENCE_TIMEOUT_MS } from '../../../src/agent/hand-over/protocol.ts';
import type { Clock } from '../../../src/base/clock.ts';
import { MeshError } from '../../../src/base/errors.ts';
import { closeFd } from '../../../src/sys/duplicate.ts';
import { linuxSys } from '../../../src/sys/linux.ts';
import { takeRunLock } from '../../../src/sys/run-lock.ts';
import { systemClock } from '../../../src/sys/system-clock.ts';
import type { UnixListener, UnixSocket } from '../../../src/sys/unix-contract.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { skipWithoutRoot } from '../../support/netns.ts';
import { GivingNode, HELLO, hear, say } from './giving-node.ts';

const timed = { timeout: 30_000 };

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
