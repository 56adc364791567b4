import assert from 'node:assert/strict';
import { once } from 'node:events';
import type net from 'node:net';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { InheritedConnection, InheritedStream } from '../../../src/proxy/inheritance.ts';
import { closeFd } from '../../../src/sys/duplicate.ts';
import type { H2Stream } from '../../../src/tunnel/h2-stream.ts';
import {
  RESUME_OFFER,
  readOfferAnswer,
  readResumeAnswer,
  resumeFields,
  suspendedTrailers,
} from '../../../src/wire/resume.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { fillUntilBlocked } from '../../support/tcp.ts';
import { policy } from '../../unit/model/sample-mesh.ts';
import { Reader } from '../tunnel/h2-peers.ts';
import { CLIENT, ProxyWorld, SERVER } from './proxy-world.ts';
import { FAR, Pair, SERVING } from './resume-pair.ts';

const bounded = { timeout: 60_000 };
/** Keeps what has come, so that nothing is lost between looks. */
class Client {
  readonly socket: net.Socket;
  text = '';
  #sent = '';

  constructor(socket: net.Socket) {
    this.socket = socket.setEncoding('latin1').on('data', (text: string) => (this.text += text));
  }

  async echo(text: string): Promise<void> {
    this.socket.write(text);
    this.#sent += text;
    while (this.text.length < this.#sent.length) await once(this.socket, 'data');
    assert.equal(this.text, this.#sent);
  }

  async end(): Promise<void> {
    this.socket.end();
    await once(this.socket, 'end');
    assert.equal(this.text, this.#sent);
  }
}

/** Resolves when the socket is closed, in whatever way. */
function closeOf(socket: net.Socket): Promise<void> {
  return new Promise((resolve) => void socket.on('error', () => {}).once('close', () => resolve()));
}

const replacements: readonly (readonly [who: string, replace: (pair: Pair) => Promise<unknown>])[] = [
  ['the server’s agent', (pair) => pair.replaceServer()],
  ['the client’s agent', (pair) => pair.replaceClient()],
  [
    'both agents, one after the other',
    async (pair) => {
      await pair.replaceServer();
      await pair.replaceClient();
    },
  ],
  ['both agents at once', (pair) => Promise.all([pair.replaceServer(), pair.replaceClient()])],
];

for (const [who, replace] of replacements) {
  test(`streams go on while ${who} is replaced, twice, and end with one line at each end`, bounded, async () => {
    await using pair = new Pair();
    const clients = await Promise.all(Array.from({ length: 20 }, async () => new Client(await pair.connect())));
    await Promise.all(clients.map((client) => client.echo('before ')));

    for (const word of ['once ', 'again ']) {
      await replace(pair);
      await Promise.all(clients.map((client) => client.echo(word)));
    }
    // Whoever had to wait for its peer moves in the last part, or goes on where it is.
    if (who !== 'both agents at once') assert.deepEqual(pair.left, { connections: 0, ends: 0 });

    await Promise.all(clients.map((client) => client.end()));
    const ends = [pair.client, pair.server].map(({ ends: lines }) => lines.length);
    if (who !== 'both agents at once') assert.deepEqual(ends, [20, 20]);
    for (const { fields } of [...pair.client.ends, ...pair.server.ends]) assert.equal(fields['error'], undefined);
    const [{ fields } = assert.fail('no line')] = pair.server.ends;
    assert.deepEqual([fields['bytes_recv'], fields['bytes_sent']], [18, 18]);
  });
}

for (const [where, replace] of [
  ['the client’s agent', 'replaceClient'],
  ['the server’s agent', 'replaceServer'],
] as const) {
  test(
    `a stream whose reader is stuck stays in its process when ${where} is replaced, and loses nothing`,
    bounded,
    async () => {
      await using pair = new Pair();
      const accepted = Promise.withResolvers<net.Socket>();
      const { socket } = new Client(await pair.connect((app) => accepted.resolve(app.pause())));
      const app = await accepted.promise;
      const sent = await fillUntilBlocked(socket);

      await pair[replace]();

      assert.deepEqual(pair.left, { connections: 1, ends: 0 });
      socket.end();
      const reader = new Client(app);
      reader.socket.resume();
      await once(reader.socket, 'end');
      assert.equal(reader.text.length, sent);
    },
  );

  test(`bulk that is on its way both ways when ${where} is replaced arrives once, in order`, bounded, async () => {
    await using pair = new Pair();
    const socket = await pair.connect();
    const bytes = Buffer.from(Array.from({ length: 400_000 }, (_, at) => `${at} `).join(''));
    const back: Buffer[] = [];
    socket.on('data', (chunk: Buffer) => back.push(chunk)).write(bytes.subarray(0, 1_000_000));
    await once(socket, 'data');

    socket.write(bytes.subarray(1_000_000));
    await pair[replace]();

    socket.end();
    await once(socket, 'end');
    assert.ok(Buffer.concat(back).equals(bytes));
  });
}

test(
  'calls whose clients end first are answered in full while the server’s agent is replaced again and again',
  bounded,
  async () => {
    await using pair = new Pair();
    await pair.serve((app) => {
      app.on('data', (chunk: Buffer) => app.write(chunk)).on('end', () => app.end());
    });
    const calls: Promise<string>[] = [];
    for (let round = 0; round < 12; round++) {
      // They begin at odd moments of what follows.
      for (let count = 0; count < 6; count++) calls.push(pair.client.connect('outbound').then(called));
      await Promise.all([pair.replaceServer(), ...calls.slice(-3)]);
    }
    assert.deepEqual(new Set(await Promise.all(calls)), new Set(['end x']));
  },
);

/** How a call ended, and what the answer was. */
async function called(socket: net.Socket): Promise<string> {
  const client = new Client(socket);
  const ended = new Promise<string>((resolve) => void socket.once('end', () => resolve('end')));
  const closed = closeOf(socket).then(() => 'closed');
  socket.end('x');
  return `${await Promise.race([ended, closed])} ${client.text}`;
}

test('an agent that leaves sends clients of streams that have left to the next one, at once', bounded, async () => {
  const clock = new FakeClock();
  await using former = new ProxyWorld({ clock });
  const { ip, port } = await former.app();
  const inherited = { listeners: await former.proxy.leaveListeners(), connections: [] };
  await using world = new ProxyWorld({ clock, inherited, former });
  const { session } = await world.tunnel();
  const early = session.request({ authority: `${ip}:${port}`, headers: resumeFields('0'.repeat(32)) });
  // The next is answered after it was read.
  await session.request({ authority: `${ip}:${port}` }).response;

  await world.proxy.leaveListeners();

  assert.equal((await early.response).status, 404);
});

for (const [who, replace] of [
  ['client', 'replaceClient'],
  ['server', 'replaceServer'],
] as const) {
  test(
    `tunnels are there before the first stream moves when the agent of the ${who} is replaced`,
    bounded,
    async () => {
      await using pair = new Pair();
      const clients = await Promise.all(Array.from({ length: 150 }, async () => new Client(await pair.connect())));
      await Promise.all(clients.map((client) => client.echo('before')));
      assert.equal(pair.client.dials, 2);

      await pair[replace]();
      await Promise.all(clients.map((client) => client.echo('after')));

      const dials = who === 'client' ? 2 : 4;
      assert.deepEqual([pair.dialsBefore[who], pair.client.dials], [dials, dials]);
    },
  );
}

test('a stream of a peer that does not resume stays in its process', bounded, async () => {
  await using world = new ProxyWorld();
  const { ip, port } = await world.app();
  const peer = await world.tunnel();
  const stream = peer.session.request({ authority: `${ip}:${port}` });
  assert.equal(readOfferAnswer((await stream.response).headers), undefined);
  await world.proxy.leaveListeners();

  assert.deepEqual(await world.proxy.moveSome(), { connections: [], isLast: true });
  assert.equal(world.proxies.counts('p1')?.connections, 1);
});

test(
  'a stream that the mesh of the next process forbids is closed there for that, and its client is told',
  bounded,
  async () => {
    await using pair = new Pair();
    const client = new Client(await pair.connect());
    await client.echo('before');
    const closed = closeOf(client.socket);

    await pair.replaceServer({ ...SERVING, policies: [policy('nobody', { rules: [] })] });

    assert.equal(
      (await pair.server.line(({ message }) => message === 'connection complete')).fields['reason'],
      'CV-POLICY-CHANGED',
    );
    await closed;
  },
);

interface Suspended {
  readonly world: ProxyWorld;
  readonly authority: string;
  readonly token: string;
  /** What the application at the other end of the stream has. */
  readonly app: net.Socket;
}

/** A stream of a client that has suspended it and not come back. */
async function suspended(world: ProxyWorld, identity = CLIENT): Promise<Suspended> {
  const accepted = Promise.withResolvers<net.Socket>();
  const { ip, port } = await world.app((socket) => accepted.resolve(socket));
  const authority = `${ip}:${port}`;
  const { session } = await world.tunnel(undefined, identity);
  const stream = session.request({ authority, headers: RESUME_OFFER });
  const token = readOfferAnswer((await stream.response).headers) ?? assert.fail('no token');
  const reader = new Reader(stream);
  stream.end(suspendedTrailers(0));
  await reader.closed;
  assert.notEqual(stream.remoteTrailers, undefined);
  return { world, authority, token, app: await accepted.promise };
}

/** The status of a CONNECT that wants to go on with a stream, and the stream. */
async function resume(
  { world, authority, token }: Pick<Suspended, 'world' | 'authority' | 'token'>,
  identity = CLIENT,
): Promise<{ readonly status: number; readonly token: string | undefined; readonly stream: H2Stream }> {
  const { session } = await world.tunnel(undefined, identity);
  const stream = session.request({ authority, headers: resumeFields(token) });
  const { status, headers } = await stream.response;
  return { status, token: readResumeAnswer(headers), stream };
}

/** Its one stream, given away. */
async function leftBy({ proxy }: ProxyWorld): Promise<InheritedStream> {
  await proxy.leaveListeners();
  const { connections } = await proxy.moveSome();
  const [moved] = connections;
  assert.ok(moved !== undefined && 'tunnel' in moved);
  return moved;
}

function reasons({ ends }: ProxyWorld): readonly unknown[] {
  return ends.map(({ fields }) => fields['reason']);
}

test('a suspended stream goes on with its token, once; the next time takes the next token', bounded, async () => {
  await using world = new ProxyWorld();
  const parked = await suspended(world);

  const first = await resume(parked);

  assert.equal(first.status, 200);
  assert.match(first.token ?? '', /^[0-9a-f]{32}$/);
  assert.notEqual(first.token, parked.token);
  parked.app.write('hello');
  await new Reader(first.stream).until(5);
  assert.equal((await resume(parked)).status, 404);
  assert.deepEqual(reasons(world), ['CV-RESUME-UNKNOWN']);
  assert.equal(first.stream.isClosed, false, 'the replay does not touch the stream');
});

test('a token of another identity is refused, and its owner still goes on', bounded, async () => {
  await using world = new ProxyWorld();
  const parked = await suspended(world);

  assert.equal((await resume(parked, SERVER)).status, 401);

  assert.deepEqual(reasons(world), ['CV-RESUME-IDENTITY']);
  assert.equal((await resume(parked)).status, 200);
});

test('a token for another destination is refused, and is still good for its own', bounded, async () => {
  await using world = new ProxyWorld();
  const parked = await suspended(world);
  const { ip, port } = await world.app();

  assert.equal((await resume({ ...parked, authority: `${ip}:${port}` })).status, 401);

  assert.equal((await resume(parked)).status, 200);
});

for (const [what, value, status] of [
  ['nobody was given', `1;token=${'0'.repeat(32)}`, 404],
  ['cannot be one', '1;token=none', 400],
] as const) {
  test(`a token that ${what} is refused, and no application is called`, bounded, async () => {
    await using world = new ProxyWorld();
    let calls = 0;
    const { ip, port } = await world.app(() => (calls += 1));
    const { session } = await world.tunnel();

    const stream = session.request({ authority: `${ip}:${port}`, headers: { 'culvert-resume': value } });

    assert.equal((await stream.response).status, status);
    assert.equal(calls, 0);
  });
}

test('a client that does not come back in time has lost its stream, and its token', bounded, async () => {
  const clock = new FakeClock();
  await using world = new ProxyWorld({ clock });
  const parked = await suspended(world);
  const closed = closeOf(parked.app);

  clock.advance(59_999);
  assert.equal(world.ends.length, 0);
  clock.advance(1);

  await closed;
  assert.deepEqual(reasons(world), ['CV-RESUME-LATE']);
  assert.equal((await resume(parked)).status, 404);
});

test('a stream that is parked moves without asking anybody, and goes on where it is then', bounded, async () => {
  await using giver = new ProxyWorld();
  const parked = await suspended(giver);
  await using heir = new ProxyWorld({
    inherited: { listeners: await giver.proxy.leaveListeners(), connections: [] },
    former: giver,
  });

  const { connections } = await giver.proxy.moveSome();
  const early = resume({ ...parked, world: heir });
  await heir.proxy.adopt(connections);

  const { status, stream } = await early;
  assert.equal(status, 200, 'a client that is faster than the hand-over is waited for');
  parked.app.write('hello');
  await new Reader(stream).until(5);
});

test(
  'a stream whose application has ended in order while it was parked moves, and its client hears that end',
  bounded,
  async () => {
    await using giver = new ProxyWorld();
    const accepted = Promise.withResolvers<net.Socket>();
    const { ip, port } = await giver.app((socket) => accepted.resolve(socket.resume()));
    const authority = `${ip}:${port}`;
    const { session } = await giver.tunnel();
    const stream = session.request({ authority, headers: RESUME_OFFER });
    const token = readOfferAnswer((await stream.response).headers) ?? assert.fail('no token');
    const reader = new Reader(stream);
    stream.end();
    const app = await accepted.promise;
    await once(app, 'end');
    app.write('last word');
    await reader.until('last word'.length);
    stream.askToSuspend();
    await reader.closed;
    assert.notEqual(stream.remoteTrailers, undefined);
    app.end();
    await once(app, 'close');
    // Read, and with it the socket is closed there, too.
    for (let turns = 0; turns < 50; turns++) await nextTurn();
    await using heir = new ProxyWorld({
      inherited: { listeners: await giver.proxy.leaveListeners(), connections: [] },
      former: giver,
    });

    const { connections } = await giver.proxy.moveSome();
    await heir.proxy.adopt(connections);
    const next = await resume({ world: heir, authority, token });

    assert.equal(next.status, 200);
    const rest = new Reader(next.stream);
    next.stream.end();
    assert.equal(await rest.closed, undefined);
    assert.deepEqual([rest.bytes, rest.ends], [0, 1]);
    const { fields } = await heir.line(({ message }) => message === 'connection complete');
    assert.deepEqual([fields['error'], fields['bytes_sent']], [undefined, 'last word'.length]);
    assert.deepEqual([giver.ends.length, giver.proxies.counts('p1')?.connections], [0, 0]);
  },
);

test('a thread that a client finds first gets the stream of another one, for its owner alone', bounded, async () => {
  await using world = new ProxyWorld();
  const parked = await suspended(world);
  const question = { peerIdentity: CLIENT, authority: parked.authority };
  const { token } = parked;
  const claim = (more: object) => world.proxies.surrender({ podUid: 'p1', token, question: { ...question, ...more } });

  assert.equal(await claim({ peerIdentity: SERVER }), 'foreign');
  assert.equal(await world.proxies.surrender({ podUid: 'p1', token: '0'.repeat(32), question }), 'nowhere');
  const found = (await claim({})) as InheritedConnection;
  assert.equal(await claim({}), 'nowhere');

  await world.proxy.adopt([found]);
  assert.equal((await resume(parked)).status, 200);
});

test('a client whose token is refused gives its connection up, and says why', bounded, async () => {
  await using pair = new Pair();
  const client = new Client(await pair.connect());
  await client.echo('before');
  const closed = closeOf(client.socket);
  // As if the server had given it for something else.
  const moved = await leftBy(pair.client);
  assert.ok(moved.tunnel.wayBack.kind === 'ask');
  const { route } = moved.tunnel.wayBack;
  const wayBack = { kind: 'ask', route: { ...route, authority: `${FAR}:1` } } as const;

  await pair.client.proxy.adopt([{ ...moved, tunnel: { ...moved.tunnel, wayBack } }]);

  await closed;
  assert.deepEqual(reasons(pair.client), ['CV-CONNECT-DENIED']);
});

test(
  'a stream that stayed in the agent before goes on in the next one when its client comes there',
  bounded,
  async () => {
    await using pair = new Pair();
    const accepted = Promise.withResolvers<net.Socket>();
    const socket = await pair.connect((app) => accepted.resolve(app.pause()));
    const app = await accepted.promise;
    const sent = await fillUntilBlocked(socket);
    // Its reader is stuck, so it stays; and then its client leaves, whose next process knows the new agent only.
    await pair.replaceServer();
    assert.equal(pair.left.connections, 1);
    const reader = new Client(app);
    app.resume();
    while (reader.text.length < sent) await once(app, 'data');

    await pair.replaceClient();

    const client = new Client(socket);
    app.write('hello');
    while (client.text !== 'hello') await once(socket, 'data');
    assert.deepEqual(pair.left, { connections: 0, ends: 0 });
  },
);

test(
  'an application that resets its connection while it is parked: the client that comes hears just that',
  bounded,
  async () => {
    await using world = new ProxyWorld();
    const parked = await suspended(world);
    parked.app.resetAndDestroy();
    await world.line(({ message }) => message === 'connection complete');

    const { status, stream } = await resume(parked);

    assert.equal(status, 200);
    await new Reader(stream).closed;
  },
);

test(
  'an application that goes while its agent asks for the next tunnel: the other end hears of it',
  bounded,
  async () => {
    await using pair = new Pair();
    const accepted = Promise.withResolvers<net.Socket>();
    const socket = await pair.connect((app) => accepted.resolve(app));
    const app = await accepted.promise;
    app.write('hello');
    await once(socket, 'data');
    const inherited = { listeners: await pair.server.proxy.leaveListeners(), connections: [] };
    const { connections } = await pair.server.proxy.moveSome();
    assert.equal(connections.length, 1);
    const closed = closeOf(app);
    socket.resetAndDestroy();
    await pair.client.line(({ message }) => message === 'connection complete');

    await using heir = new ProxyWorld({ mesh: SERVING, inherited, former: pair.server });
    await heir.proxy.adopt(connections);

    await closed;
  },
);

test('a client is cut soon when the other end of its stream is gone for good', bounded, async () => {
  await using pair = new Pair();
  const client = new Client(await pair.connect());
  await client.echo('before');
  const closed = closeOf(client.socket);
  const moved = await leftBy(pair.client);

  // As if the agent at the other end had been killed, and a new one knew nothing.
  await pair.client.proxy.adopt([{ ...moved, tunnel: { ...moved.tunnel, token: '0'.repeat(32) } }]);

  await closed;
  assert.deepEqual(reasons(pair.client), ['CV-RESUME-LATE']);
});

test(
  'a stream may turn up while its agent leaves, and is nowhere once nothing of that is under way',
  bounded,
  async () => {
    const clock = new FakeClock();
    await using world = new ProxyWorld({ clock });
    const question = { peerIdentity: CLIENT, authority: '192.0.2.1:80' };
    const claim = () => world.proxies.surrender({ podUid: 'p1', token: '0'.repeat(32), question });
    assert.equal(await claim(), 'nowhere');

    for (const { fd } of await world.proxy.leaveListeners()) closeFd(fd);
    assert.equal(await claim(), 'later');

    clock.advance(10_000);
    assert.equal(await claim(), 'nowhere');
  },
);
