/** Connections one half of which has ended go on in the next process as all others do, and the end that was said stays said. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import type net from 'node:net';
import { test } from 'node:test';
import type { HostPort } from '../../../src/base/ip.ts';
import { EMPTY_MESH, type MeshState } from '../../../src/model/mesh-index.ts';
import { closeFd } from '../../../src/sys/duplicate.ts';
import { workload } from '../../unit/model/sample-mesh.ts';
import { ProxyWorld } from './proxy-world.ts';
import { Pair } from './resume-pair.ts';

const bounded = { timeout: 120_000 };
/** The captured pod is not 127.0.0.1: what listens there is unknown to the mesh, and dialled as it is. */
const OUTSIDE: MeshState = { ...EMPTY_MESH, workloads: [workload('server', { ips: ['127.0.0.2'] })] };

/** One end of a connection: keeps what comes, and looks at every byte. */
class End {
  readonly socket: net.Socket;
  readonly ended: Promise<unknown>;
  readonly closed: Promise<unknown>;
  hasHeardEnd = false;
  text = '';

  constructor(socket: net.Socket) {
    this.socket = socket.setEncoding('latin1').on('error', () => {});
    this.socket.on('data', (text: string) => (this.text += text)).resume();
    this.ended = once(socket, 'end').then(() => (this.hasHeardEnd = true));
    this.closed = new Promise((resolve) => socket.once('close', resolve));
  }

  async heard(text: string): Promise<void> {
    while (this.text.length < text.length && !this.hasHeardEnd)
      await Promise.race([once(this.socket, 'data'), this.ended]);
    assert.equal(this.text, text);
  }
}

/** Numbers from one to another, so that what is lost, doubled or out of order shows. */
function numbers(from: number, to: number): string {
  return Array.from({ length: to - from }, (_, at) => `${from + at} `).join('');
}

/** Nobody says anything behind the two answers before the client does. */
async function throughSocks(client: net.Socket, { ip, port }: HostPort): Promise<net.Socket> {
  client.write(Buffer.from([5, 1, 0, 5, 1, 0, 1, ...ip.split('.').map(Number), port >> 8, port & 0xff]));
  let heard = '';
  while (heard.length < 24) heard += ((await once(client, 'data')) as [Buffer])[0].toString('hex');
  assert.equal(heard, '050005000001000000000000');
  return client;
}

interface Way {
  /** Both ends of a connection, that of the client first. */
  connect(): Promise<readonly [End, End]>;
  /** Replaces who carries it. Rejects when it did not move. */
  replace(): Promise<void>;
  /** Lines that say how it ended, each with an error if there was one. */
  ends(): readonly unknown[];
}

async function joined(dial: (app: (socket: net.Socket) => void) => Promise<net.Socket>): Promise<readonly [End, End]> {
  const accepted = Promise.withResolvers<End>();
  const client = new End(await dial((socket) => accepted.resolve(new End(socket))));
  client.socket.write('hello');
  const app = await accepted.promise;
  await app.heard('hello');
  return [client, app];
}

/** Of the lines that say how a connection ended: each with its error, if there was one. */
function endsOf(worlds: readonly ProxyWorld[]): readonly unknown[] {
  const lines = worlds.flatMap(({ ends }) => ends).filter(({ message }) => message === 'connection complete');
  return lines.map(({ fields }) => fields['error']);
}

/** Through a tunnel between two agents. */
function tunnelled(undo: AsyncDisposableStack, replace: (pair: Pair) => Promise<unknown>): Way {
  const pair = undo.use(new Pair());
  return {
    connect: () => joined((app) => pair.connect(app)),
    replace: async () => {
      await replace(pair);
      assert.equal(pair.left.connections, 0);
    },
    ends: () => endsOf([pair.client, pair.server]),
  };
}

/** Between two sockets of one agent. */
function plain(undo: AsyncDisposableStack, listener: 'plaintext' | 'outbound' | 'socks', mesh?: MeshState): Way {
  const worldOf = () => undo.use(new ProxyWorld(mesh === undefined ? {} : { mesh }));
  let serving = worldOf();
  return {
    connect: () =>
      joined(async (app) => {
        serving.target = await serving.app(app);
        const client = await serving.connect(listener);
        return listener === 'socks' ? await throughSocks(client, serving.target) : client;
      }),
    replace: async () => {
      const former = serving;
      serving = worldOf();
      for (const { fd } of await former.proxy.leaveListeners()) closeFd(fd);
      for (let isLast = false; !isLast; ) {
        const part = await former.proxy.moveSome();
        await serving.proxy.adopt(part.connections);
        ({ isLast } = part);
      }
      assert.deepEqual([former.proxies.counts('p1')?.connections, former.ends.length], [0, 0]);
    },
    ends: () => endsOf([serving]),
  };
}

const WAYS: readonly (readonly [string, (undo: AsyncDisposableStack) => Way, lines: number])[] = [
  ['a stream whose server’s agent is replaced', (undo) => tunnelled(undo, (pair) => pair.replaceServer()), 2],
  ['a stream whose client’s agent is replaced', (undo) => tunnelled(undo, (pair) => pair.replaceClient()), 2],
  [
    'a stream whose agents are replaced one after the other',
    (undo) =>
      tunnelled(undo, async (pair) => {
        await pair.replaceClient();
        await pair.replaceServer();
      }),
    2,
  ],
  ['a plaintext connection into a pod', (undo) => plain(undo, 'plaintext'), 1],
  ['a connection out of the mesh', (undo) => plain(undo, 'outbound', OUTSIDE), 1],
  ['a connection out of the mesh, through SOCKS', (undo) => plain(undo, 'socks', OUTSIDE), 1],
];

for (const [what, make, lines] of WAYS) {
  for (const [which, pick] of [
    ['client', ([client, app]: readonly [End, End]) => [client, app] as const],
    ['server', ([client, app]: readonly [End, End]) => [app, client] as const],
  ] as const) {
    test(`${what}: the half that the ${which} has ended stays ended, and the other one goes on`, bounded, async () => {
      await using undo = new AsyncDisposableStack();
      const way = make(undo);
      const both = await way.connect();
      const [done, going] = pick(both);
      const asked = going.text;
      done.socket.end('last word');
      await going.ended;
      assert.equal(going.text, `${asked}last word`);

      const before = done.text;
      let said = 0;
      for (const upTo of [300, 5_000, 9_000]) {
        going.socket.write(numbers(said, upTo));
        said = upTo;
        await done.heard(before + numbers(0, said));
        await way.replace();
      }
      going.socket.end(numbers(said, 9_500));

      await done.ended;
      assert.equal(done.text, before + numbers(0, 9_500));
      assert.equal(going.text, `${asked}last word`);
      await Promise.all([done.closed, going.closed]);
      while (way.ends().length < lines) await new Promise(setImmediate);
      assert.deepEqual(way.ends(), Array.from({ length: lines }));
    });
  }
}

test(
  'bulk goes on arriving after its asker has ended, in order and once, while both agents are replaced at once',
  bounded,
  async () => {
    await using pair = new Pair();
    const all = numbers(0, 200_000);
    const opened: (readonly [End, End])[] = [];
    while (opened.length < 6) opened.push(await joined((app) => pair.connect(app)));
    const calls = opened.map(async ([client, app]) => {
      client.socket.end();
      await app.ended;
      app.socket.end(all);
      await client.ended;
      assert.ok(client.text === all, `${client.text.length} of ${all.length} characters`);
    });
    for (let round = 0; round < 3; round++) {
      await new Promise(setImmediate);
      await Promise.all([pair.replaceServer(), pair.replaceClient()]);
    }
    await Promise.all(calls);
  },
);
