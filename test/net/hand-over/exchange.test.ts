import assert from 'node:assert/strict';
import { openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import type net from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { Heir } from '../../../src/agent/hand-over/heir.ts';
import { HandOverLink } from '../../../src/agent/hand-over/link.ts';
import { Predecessors } from '../../../src/agent/hand-over/predecessors.ts';
import { decodeReply, type Reply } from '../../../src/agent/hand-over/protocol.ts';
import type { LogFields } from '../../../src/base/log.ts';
import type { Departed } from '../../../src/proxy/departure.ts';
import { descriptorsOf, type InheritedConnection } from '../../../src/proxy/inheritance.ts';
import { closeFd, duplicate } from '../../../src/sys/duplicate.ts';
import { systemClock } from '../../../src/sys/system-clock.ts';
import { socketFd } from '../../../src/sys/tcp.ts';
import { tcpPair } from '../../support/tcp.ts';
import { answering, answerOf, GivingNode, POD } from './giving-node.ts';

const timed = { timeout: 90_000 };

/** A connection between the two ends of `pair`, with descriptors of its own. */
function inherited({ near, far }: { near: net.Socket; far: net.Socket }, id: string): InheritedConnection {
  const ends = { src: { ip: '192.0.2.1', port: 1 }, dst: { ip: '192.0.2.2', port: 2 } };
  const labels = { reporter: 'destination', securityPolicy: 'unknown' } as const;
  return {
    start: { id, podUid: POD.uid, direction: 'inbound', protocol: 'TCP', ...ends, labels },
    sockets: { downstream: duplicate(socketFd(near) ?? -1), upstream: duplicate(socketFd(far) ?? -1) },
    pausedAtMs: 0,
  };
}

async function heard(link: HandOverLink): Promise<Reply> {
  using message = await link.receive(20_000);
  assert.ok(message !== undefined);
  return decodeReply(message.data);
}

test('a listener moves with its queue, and its former owner lets go of it', timed, async () => {
  await using node = await GivingNode.start();
  using heir = await Heir.greet(new HandOverLink(node.connect(), systemClock), systemClock, 'test');
  const { listeners } = await heir.take(node.key);
  assert.deepEqual(await heir.takeMore(node.key), { connections: [], isLast: true });
  const queued = answerOf(node.port);
  const server = answering('new', listeners[0]?.fd ?? -1);
  assert.equal(await queued, 'new');
  closeFd(await heir.commit());
  assert.ok(node.hasLeft);
  assert.deepEqual(node.results, ['complete']);
  server.close();
});

test('certificates cross whatever their size, and the mesh as an open file', timed, async () => {
  await using node = await GivingNode.start();
  const big = Array.from({ length: 200 }, (_, at) => `-----BEGIN-----\n${'é'.repeat(1_000 + at)}\n-----END-----`);
  const certificates = ['a', 'b', 'c'].map((identity) => ({
    identity,
    keyPem: identity,
    chainPem: big,
    rootsPem: big,
  }));
  const path = join(node.folder, 'mesh');
  writeFileSync(path, 'the mesh');
  node.legacy = { certificates, meshFd: openSync(path, 'r') };
  rmSync(path);
  using heir = await Heir.greet(new HandOverLink(node.connect(), systemClock), systemClock, 'test');

  const { certificates: got, meshFd = -1 } = await heir.inherit();

  assert.deepEqual(got, certificates);
  assert.equal(readFileSync(`/proc/self/fd/${meshFd}`, 'utf8'), 'the mesh');
  closeFd(meshFd);
  assert.equal((await heir.take(node.key)).listeners.length, 1);
});

test('a successor that dies after it was given a pod gives it back', timed, async () => {
  await using node = await GivingNode.start();
  const heir = await Heir.greet(new HandOverLink(node.connect(), systemClock), systemClock, 'test');
  const { listeners } = await heir.take(node.key);
  closeFd(listeners[0]?.fd ?? -1);
  heir[Symbol.dispose]();
  while (node.starts.length < 2) await new Promise(setImmediate);
  assert.equal(node.starts[1]?.listeners.length, 0);
  assert.equal(await node.answer(), 'old');
  assert.deepEqual([node.hasLeft, node.results], [false, ['lost']]);
});

test(
  'connections follow in parts, and only what is on offer when the successor is lost comes back',
  timed,
  async () => {
    await using node = await GivingNode.start();
    await using pair = await tcpPair();
    const part = (id: string): Departed => ({ connections: [inherited(pair, id)], isLast: false });
    node.departures.push(part('a'), part('b'));
    const link = new HandOverLink(node.connect(), systemClock);
    const heir = await Heir.greet(link, systemClock, 'test');
    const { listeners } = await heir.take(node.key);
    const taken = await heir.takeMore(node.key);
    assert.deepEqual([taken.connections.map(({ start }) => start.id), taken.isLast], [['a'], false]);
    // A second part is asked for, and its acceptance never comes.
    await link.send({ type: 'more', pod: node.key });
    assert.equal((await heard(link)).type, 'connections');
    heir[Symbol.dispose]();
    while (node.starts.length < 2) await new Promise(setImmediate);
    assert.deepEqual(node.starts[1]?.listeners, []);
    assert.deepEqual(
      node.starts[1]?.connections.map(({ start }) => start.id),
      ['b'],
    );
    for (const fd of descriptorsOf({ listeners, connections: taken.connections })) closeFd(fd);
  },
);

test('a successor is told what its predecessor holds, until all of it has ended', timed, async () => {
  await using node = await GivingNode.start();
  node.counts = { live: 3, cut: 0 };
  const heir = await Heir.greet(new HandOverLink(node.connect(), systemClock), systemClock, 'test');
  closeFd(await heir.commit());
  const lines: [string, LogFields | undefined][] = [];
  const log = { info: (text: string, fields?: LogFields) => void lines.push([text, fields]) };
  using predecessors = new Predecessors(heir.link, { clock: systemClock, log, canClaim: true });
  const held = () => predecessors.agents[0]?.connections;
  while (held() !== 3) await new Promise(setImmediate);
  assert.deepEqual(predecessors.agents[0]?.pid, process.pid);

  node.counts = { live: 1, cut: 1 };
  while (held() !== 1) {
    node.clock.advance(1_000);
    await new Promise(setImmediate);
  }

  node.counts = { live: 0, cut: 2 };
  await node.leave();
  while (lines.length === 0) await new Promise(setImmediate);
  const [text, fields] = lines[0] ?? [];
  assert.equal(text, 'the agent before this one has ended');
  assert.deepEqual([fields?.['held'], fields?.['cut']], [3, 2]);
  assert.deepEqual(predecessors.agents, []);
  assert.ok(node.lines.includes('hand-over is over'));
});

const CLAIM = {
  podUid: POD.uid,
  token: '0'.repeat(32),
  question: { authority: '192.0.2.2:2', peerIdentity: 'spiffe://cluster.local/ns/default/sa/client' },
} as const;

test('a stream that a client looks for is given while pods are taken, and after that', timed, async () => {
  await using node = await GivingNode.start();
  await using pair = await tcpPair();
  const heir = await Heir.greet(new HandOverLink(node.connect(), systemClock), systemClock, 'test');
  const { listeners } = await heir.take(node.key);
  node.claimed.push(inherited(pair, 'early'), 'foreign');

  const early = await heir.claim(node.key, CLAIM);
  assert.equal(await heir.claim(node.key, CLAIM), 'foreign');

  const committed = heir.commit();
  // Nobody may read on the link beside who follows what the other agent tells.
  assert.equal(await heir.claim(node.key, CLAIM), 'later');
  closeFd(await committed);
  using predecessors = new Predecessors(heir.link, { clock: systemClock, log: {}, canClaim: true });
  node.claimed.push('nowhere', inherited(pair, 'late'));
  const [none, late] = await Promise.all([predecessors.claim(node.key, CLAIM), predecessors.claim(node.key, CLAIM)]);

  assert.deepEqual(
    node.asked,
    Array.from({ length: 4 }, () => CLAIM),
  );
  assert.equal(none, 'nowhere');
  const connections = [early, late].filter((found) => typeof found === 'object');
  assert.deepEqual(
    connections.map(({ start }) => start.id),
    ['early', 'late'],
  );
  for (const fd of descriptorsOf({ listeners, connections })) closeFd(fd);
  await node.leave();
  while ((await predecessors.claim(node.key, CLAIM)) !== 'nowhere') await new Promise(setImmediate);
});

test('a stream on offer to a successor that dies is kept where it was', timed, async () => {
  await using node = await GivingNode.start();
  await using pair = await tcpPair();
  const link = new HandOverLink(node.connect(), systemClock);
  const heir = await Heir.greet(link, systemClock, 'test');
  closeFd(await heir.commit());
  node.claimed.push(inherited(pair, 'claimed'));
  await link.send({ type: 'claim', pod: node.key, claim: CLAIM });
  while ((await heard(link)).type !== 'offered');

  heir[Symbol.dispose]();

  while (node.kept.length === 0) await new Promise(setImmediate);
  assert.deepEqual(
    node.kept.map(({ start }) => start.id),
    ['claimed'],
  );
});
