import assert from 'node:assert/strict';
import { once } from 'node:events';
import { chownSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { Estate, estateKey } from '../../../src/agent/hand-over/estate.ts';
import { Giver } from '../../../src/agent/hand-over/giver.ts';
import { Heir } from '../../../src/agent/hand-over/heir.ts';
import { NodeLease } from '../../../src/agent/hand-over/lease.ts';
import type { Legacy } from '../../../src/agent/hand-over/legacy.ts';
import { HandOverLink } from '../../../src/agent/hand-over/link.ts';
import { Predecessors } from '../../../src/agent/hand-over/predecessors.ts';
import {
  decodeReply,
  encode,
  OFFER_TIMEOUT_MS,
  type Reply,
  type Request,
  VERSIONS,
} from '../../../src/agent/hand-over/protocol.ts';
import { MeshError } from '../../../src/base/errors.ts';
import type { LogFields } from '../../../src/base/log.ts';
import type { Departed } from '../../../src/proxy/departure.ts';
import {
  descriptorsOf,
  type Inheritance,
  type InheritedConnection,
  NO_INHERITANCE,
} from '../../../src/proxy/inheritance.ts';
import { closeFd, duplicate } from '../../../src/sys/duplicate.ts';
import { linuxSys } from '../../../src/sys/linux.ts';
import { takeRunLock } from '../../../src/sys/run-lock.ts';
import { systemClock } from '../../../src/sys/system-clock.ts';
import { duplicateListener, listenOn, socketFd } from '../../../src/sys/tcp.ts';
import type { UnixSocket } from '../../../src/sys/unix-contract.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { skipWithoutRoot } from '../../support/netns.ts';
import { tcpPair } from '../../support/tcp.ts';

const timed = { timeout: 30_000 };
const HELLO = { type: 'hello', ...VERSIONS, build: 'test' } as const;
const POD = { uid: 'p1' };

/** An agent with one pod, whose listener answers with the name of who accepted. */
class Node implements AsyncDisposable {
  readonly folder = mkdtempSync(join(tmpdir(), 'culvert-hand-over-'));
  readonly clock = new FakeClock();
  readonly key: string;
  readonly lines: string[] = [];
  /** What the pod was started with, each time. */
  readonly starts: Inheritance[] = [];
  /** What it says when it is asked for connections. */
  readonly departures: Departed[] = [];
  counts = { live: 0, cut: 0 };
  /** How exchanges went. */
  readonly results: string[] = [];
  /** What it knows. */
  legacy: Legacy = { certificates: [] };
  /** Nothing is held any more. */
  leave: () => Promise<void> = async () => {};
  port = 0;
  hasLeft = false;
  readonly #undo = new AsyncDisposableStack();

  private constructor(key: string) {
    this.key = key;
  }

  static async start(): Promise<Node> {
    const netns = linuxSys.openNetns('/proc/self/ns/net');
    const node = new Node(estateKey(POD, netns));
    node.#undo.use(netns);
    node.#undo.defer(() => rmSync(node.folder, { recursive: true }));
    const lock = node.#undo.use(takeRunLock(node.folder));
    const estate = new Estate();
    const pod = await estate.serve(
      POD,
      netns,
      { start: async (_pod, _netns, inherited) => node.#serve(inherited) },
      NO_INHERITANCE,
    );
    node.#undo.defer(() => pod.stop('immediate'));
    const log = (message: string): void => void node.lines.push(message);
    const giver = new Giver(linuxSys.listenUnix(node.path, { type: 'seqpacket' }), {
      clock: node.clock,
      log: { debug: log, info: log, warn: log, error: log },
      build: 'test',
      estate,
      uid: process.getuid?.() ?? 0,
      lock,
      counts: () => node.counts,
      settle: async () => {},
      legacy: async () => node.legacy,
      holdMs: 60_000,
      predecessors: () => [],
      servers: { yield: async () => {}, resume: async () => {} },
      onResult: (result) => node.results.push(result),
      onLeft: () => (node.hasLeft = true),
    });
    node.#undo.use(giver);
    node.leave = () => giver[Symbol.asyncDispose]();
    return node;
  }

  get path(): string {
    return join(this.folder, 'hand-over.sock');
  }

  connect(): UnixSocket {
    return this.#undo.use(linuxSys.connectUnix(this.path, 'seqpacket'));
  }

  async answer(): Promise<string> {
    return await answerOf(this.port);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#undo.disposeAsync();
  }

  #serve(inherited: Inheritance = NO_INHERITANCE) {
    this.starts.push(inherited);
    for (const fd of descriptorsOf({ ...inherited, listeners: [] })) closeFd(fd);
    const [given] = inherited.listeners;
    const address = { address: '127.0.0.1', port: this.port, isReusePort: true };
    const server = answering('old', given?.fd ?? linuxSys.listenTcp(undefined, address).fd);
    this.port = (server.address() as net.AddressInfo).port;
    return {
      leaveListeners: async () => {
        if (!server.listening) return [];
        const fd = duplicateListener(server);
        server.close();
        return [{ port: this.port, fd }];
      },
      moveSome: async () => this.departures.shift() ?? { connections: [], isLast: true },
      adopt: async () => assert.fail('nothing moves to this node'),
      stop: async () => void server.close(),
    };
  }
}

function answering(name: string, fd: number): net.Server {
  return listenOn(fd, { onConnection: (socket) => socket.end(name) });
}

async function answerOf(port: number): Promise<string> {
  const socket = net.connect(port, '127.0.0.1');
  const [data] = (await once(socket, 'data')) as [Buffer];
  socket.destroy();
  return data.toString();
}

async function say(socket: UnixSocket, request: Request): Promise<void> {
  await socket.send(encode(request));
}

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

/** The type of the next reply; its descriptors are closed. */
async function hear(socket: UnixSocket): Promise<string> {
  using message = await socket.receive(65_536);
  return message === undefined ? 'end' : decodeReply(message.data).type;
}

test('a listener moves with its queue, and its former owner lets go of it', timed, async () => {
  await using node = await Node.start();
  using heir = await Heir.greet(new HandOverLink(node.connect(), systemClock), systemClock, 'test');
  const listeners = await heir.take(node.key);
  assert.deepEqual(await heir.takeMore(node.key), { listeners: [], connections: [], isLast: true });
  const queued = answerOf(node.port);
  const server = answering('new', listeners[0]?.fd ?? -1);
  assert.equal(await queued, 'new');
  closeFd(await heir.commit());
  assert.ok(node.hasLeft);
  assert.deepEqual(node.results, ['complete']);
  server.close();
});

test('certificates cross whatever their size, and the mesh as an open file', timed, async () => {
  await using node = await Node.start();
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
  assert.equal((await heir.take(node.key)).length, 1);
});

test('a successor that dies after it was given a pod gives it back', timed, async () => {
  await using node = await Node.start();
  const heir = await Heir.greet(new HandOverLink(node.connect(), systemClock), systemClock, 'test');
  const listeners = await heir.take(node.key);
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
    await using node = await Node.start();
    await using pair = await tcpPair();
    const part = (id: string): Departed => ({ connections: [inherited(pair, id)], isLast: false });
    node.departures.push(part('a'), part('b'));
    const link = new HandOverLink(node.connect(), systemClock);
    const heir = await Heir.greet(link, systemClock, 'test');
    const listeners = await heir.take(node.key);
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

test('a successor that never accepts an offer loses it in time, and the next one is served', timed, async () => {
  await using node = await Node.start();
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
  assert.deepEqual(next.counts, { moved: 0, held: 0, longestPauseMs: 0 });
});

test('a successor is told what its predecessor holds, until all of it has ended', timed, async () => {
  await using node = await Node.start();
  node.counts = { live: 3, cut: 0 };
  const heir = await Heir.greet(new HandOverLink(node.connect(), systemClock), systemClock, 'test');
  closeFd(await heir.commit());
  const lines: [string, LogFields | undefined][] = [];
  const log = { info: (text: string, fields?: LogFields) => void lines.push([text, fields]) };
  using predecessors = new Predecessors(heir.link, { clock: systemClock, log });
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

for (const [name, first] of [
  ['something that is no agent', new TextEncoder().encode('GET / HTTP/1.1\r\n\r\n')],
  ['an agent of another time', encode({ ...HELLO, min: 7, max: 9 })],
] as const) {
  test(`${name} is sent away and the agent serves on`, timed, async () => {
    await using node = await Node.start();
    const stranger = node.connect();
    await stranger.send(first);
    let said = await hear(stranger);
    if (said === 'refused') said = await hear(stranger);
    assert.equal(said, 'end');
    assert.equal(await node.answer(), 'old');
    assert.equal(node.starts.length, 1);
  });
}

const lease = (folder: string, isTakeOver: boolean): Promise<NodeLease> =>
  NodeLease.take(
    { runDir: folder, isTakeOver, build: 'test' },
    {
      sys: linuxSys,
      clock: systemClock,
      log: { debug: undefined, info: undefined, warn: undefined, error: undefined },
    },
  );

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
