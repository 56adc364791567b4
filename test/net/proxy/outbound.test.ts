import assert from 'node:assert/strict';
import { once } from 'node:events';
import http2 from 'node:http2';
import net from 'node:net';
import { test } from 'node:test';
import type { HostPort } from '../../../src/base/ip.ts';
import type { MeshState } from '../../../src/model/mesh-index.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { readToEnd } from '../../support/tcp.ts';
import { atAddress, workload } from '../../unit/model/sample-mesh.ts';
import { type Connect, echoBack, ForeignServer } from './foreign-server.ts';
import { OPEN_MESH, ProxyWorld } from './proxy-world.ts';

const bounded = { timeout: 90_000 };
const WAYPOINT = 'spiffe://cluster.local/ns/default/sa/waypoint';
const { NGHTTP2_REFUSED_STREAM } = http2.constants;

/** `10.0.0.9` is reached through the waypoint at `address`. */
function behindWaypoint({ ip, port }: HostPort): MeshState {
  const waypoint = atAddress(ip, { hbonePort: port });
  const workloads = [workload('waypoint', { ips: [ip] }), workload('far', { ips: ['10.0.0.9'], waypoint })];
  return { ...OPEN_MESH, workloads: [workload('server', { ips: ['127.0.0.2'] }), ...workloads] };
}

async function outboundWorld(onConnect: (connect: Connect) => void) {
  const server = await ForeignServer.start(WAYPOINT, onConnect);
  const address = await server.listen();
  const world = new ProxyWorld({ mesh: behindWaypoint(address) });
  world.target = { ip: '10.0.0.9', port: 80 };
  return {
    server,
    world,
    async [Symbol.asyncDispose]() {
      await world[Symbol.asyncDispose]();
      await server[Symbol.asyncDispose]();
    },
  };
}

function refuse({ stream }: Connect): void {
  stream.close(NGHTTP2_REFUSED_STREAM);
}

test(
  'a CONNECT that was refused unseen is sent once more, on another tunnel, and nobody notices',
  bounded,
  async () => {
    let asked = 0;
    await using outbound = await outboundWorld((connect) => (asked++ === 0 ? refuse(connect) : echoBack(connect)));
    const { world, server } = outbound;

    const client = await world.connect('outbound');
    client.end('hello');

    assert.equal(await readToEnd(client), 'hello');
    assert.equal(server.connects.length, 2);
    assert.equal(server.sessions.size, 2);
    assert.deepEqual(server.connects[0]?.headers, server.connects[1]?.headers);
    await world.line(({ message }) => message === 'connection complete');
    assert.deepEqual(
      world.ends.map(({ fields }) => fields['error']),
      [undefined],
    );
  },
);

test('a CONNECT that is refused unseen twice is given up, with the reason', bounded, async () => {
  await using outbound = await outboundWorld(refuse);
  const { world, server } = outbound;

  const client = await world.connect('outbound');
  await readToEnd(client).catch(() => 'reset');

  const { fields } = await world.line(({ message }) => message === 'connection complete');
  assert.equal(fields['reason'], 'CV-CONNECT-FAILED');
  assert.match(String(fields['error']), /REFUSED_STREAM/);
  assert.equal(server.connects.length, 2);
});

test('a CONNECT that crosses a GOAWAY which leaves it out is sent once more', bounded, async () => {
  let asked = 0;
  await using outbound = await outboundWorld((connect) => {
    // The second stream of the first tunnel is not among those the GOAWAY promises.
    if (++asked === 2) connect.stream.session?.goaway(0, (connect.stream.id ?? 0) - 2);
    else echoBack(connect);
  });
  const { world, server } = outbound;
  const first = await world.connect('outbound');
  first.write('one');
  await new Promise((resolve) => first.once('data', resolve));

  const second = await world.connect('outbound');
  second.end('two');

  assert.equal(await readToEnd(second), 'two');
  assert.equal(server.connects.length, 3);
  first.end('done');
  assert.equal(await readToEnd(first), 'done', 'the stream that the GOAWAY promised goes on');
});

test('a CONNECT that was answered is never sent again, whatever the answer', bounded, async () => {
  await using outbound = await outboundWorld(({ stream }) => stream.respond({ ':status': 503 }, { endStream: true }));
  const { world, server } = outbound;

  const client = await world.connect('outbound');
  await readToEnd(client).catch(() => 'reset');

  const { fields } = await world.line(({ message }) => message === 'connection complete');
  assert.equal(fields['error'], 'http status: 503 Service Unavailable');
  assert.equal(server.connects.length, 1);
});

/** In front of a server that has no CPU: connections are taken by the kernel, and reach it when it has one. */
class Stall implements Disposable {
  /** A first word is there. */
  readonly reached: Promise<unknown>;
  readonly #listener: net.Server;
  readonly #server: HostPort;
  readonly #sockets: net.Socket[] = [];

  constructor(listener: net.Server, server: HostPort) {
    this.#listener = listener;
    this.#server = server;
    this.reached = once(listener, 'connection').then(([socket]: net.Socket[]) => socket && once(socket, 'readable'));
    listener.on('connection', (socket) => this.#sockets.push(socket));
  }

  static async before(server: HostPort): Promise<Stall> {
    const listener = net.createServer({ pauseOnConnect: true, allowHalfOpen: true }).listen(0, server.ip);
    await once(listener, 'listening');
    return new Stall(listener, server);
  }

  get address(): HostPort {
    return { ip: this.#server.ip, port: (this.#listener.address() as net.AddressInfo).port };
  }

  end(): void {
    for (const socket of [...this.#sockets]) {
      const there = net.connect({ host: this.#server.ip, port: this.#server.port, allowHalfOpen: true });
      this.#sockets.push(there);
      socket.on('error', () => there.destroy()).pipe(there);
      there.on('error', () => socket.destroy()).pipe(socket);
    }
  }

  [Symbol.dispose](): void {
    this.#listener.close();
    for (const socket of this.#sockets) socket.destroy();
  }
}

test('a peer that has no CPU for 20 s is waited for, in its handshake and with its answer', bounded, async () => {
  const clock = new FakeClock();
  const asked = Promise.withResolvers<Connect>();
  await using server = await ForeignServer.start(WAYPOINT, asked.resolve);
  using stall = await Stall.before(await server.listen());
  await using world = new ProxyWorld({ mesh: behindWaypoint(stall.address), clock });
  world.target = { ip: '10.0.0.9', port: 80 };
  const client = await world.connect('outbound');
  client.end('hello');

  await stall.reached;
  clock.advance(20_000);
  stall.end();
  const connect = await asked.promise;
  clock.advance(20_000);
  echoBack(connect);

  assert.equal(await readToEnd(client), 'hello');
});
