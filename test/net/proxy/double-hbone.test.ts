import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import http2 from 'node:http2';
import net from 'node:net';
import { test } from 'node:test';
import type { HostPort } from '../../../src/base/ip.ts';
import { EMPTY_MESH, type MeshState } from '../../../src/model/mesh-index.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { fillUntilBlocked, readToEnd } from '../../support/tcp.ts';
import { atAddress, memberOf, service, vip, workload } from '../../unit/model/sample-mesh.ts';
import { type Connect, echoBack, ForeignServer } from './foreign-server.ts';
import { ProxyWorld, revoking, SERVER } from './proxy-world.ts';

const bounded = { timeout: 60_000 };
const GATEWAY = 'spiffe://cluster.local/ns/default/sa/gateway';
const FAR = 'spiffe://cluster.local/ns/far/sa/web';
const BAGGAGE = 'k8s.cluster.name=east1,k8s.namespace.name=far,k8s.deployment.name=web-v2,service.name=web';
const { NGHTTP2_CONNECT_ERROR, NGHTTP2_CANCEL } = http2.constants;
const MIB = 1024 * 1024;

/** `10.1.0.1:80` is a service that only the network behind `gateway` serves. */
function twoNetworks({ ip, port }: HostPort): MeshState {
  return {
    ...EMPTY_MESH,
    workloads: [
      workload('server', { network: 'west', ips: ['127.0.0.2'] }),
      workload('gateway', { network: 'east', ips: [ip] }),
      workload('far', {
        network: 'east',
        services: memberOf({ web: {} }),
        networkGateway: atAddress(ip, { network: 'east', hbonePort: port }),
      }),
    ],
    services: [service('web', { vips: [vip('10.1.0.1', 'west')], subjectAltNames: [FAR] })],
  };
}

interface FarOptions {
  readonly onConnect?: (connect: Connect) => void;
  /** Who answers inside; `FAR` is who should. */
  readonly identity?: string;
  readonly gatewayIdentity?: string;
  /** What the gateway does with a CONNECT; it relays to the far end. */
  readonly gateway?: (connect: Connect, relay: () => void) => void;
  readonly world?: ConstructorParameters<typeof ProxyWorld>[0];
}

/** Our proxy, and of the other network what is not ours: a gateway that relays to a server, both node:http2 alone. */
async function farWorld({ onConnect = echoBack, identity = FAR, gatewayIdentity = GATEWAY, ...more }: FarOptions = {}) {
  await using undo = new AsyncDisposableStack();
  const server = undo.use(await ForeignServer.start(identity, onConnect));
  const { port } = await server.listen();
  const relayTo = ({ stream }: Connect): void => {
    stream.respond({ ':status': 200 });
    const socket = net.connect({ port, host: '127.0.0.1', allowHalfOpen: true, noDelay: true });
    stream.pipe(socket).on('error', () => stream.close(NGHTTP2_CONNECT_ERROR));
    socket.pipe(stream).on('close', () => socket.destroy());
  };
  const gateway = undo.use(
    await ForeignServer.start(gatewayIdentity, (connect) => {
      if (more.gateway === undefined) relayTo(connect);
      else more.gateway(connect, () => relayTo(connect));
    }),
  );
  const mesh = twoNetworks(await gateway.listen());
  const world = undo.use(new ProxyWorld({ mesh, network: 'west', ...more.world }));
  world.target = { ip: '10.1.0.1', port: 80 };
  const cleanup = undo.move();
  return { world, gateway, server, [Symbol.asyncDispose]: () => cleanup.disposeAsync() };
}

/** Resolves when `it` is gone; `once` of node:events rejects when it went with an error. */
async function closed(it: net.Socket | http2.ServerHttp2Stream | http2.ServerHttp2Session): Promise<void> {
  if (!it.closed) await new Promise<void>((resolve) => it.once('close', () => resolve()));
}

/** The one line of the connection, which must be the only one. */
async function lineOf(world: ProxyWorld) {
  const { fields } = await world.line(({ message }) => message === 'connection complete');
  assert.equal(world.ends.length, 1);
  return fields;
}

test(
  'the gateway and the far end see the same CONNECT from the pod, and the log names who served',
  bounded,
  async () => {
    await using far = await farWorld({
      onConnect: ({ stream }) => {
        stream.respond({ ':status': 200, baggage: BAGGAGE });
        stream.on('data', (chunk: Buffer) => stream.write(Buffer.concat([chunk, chunk])));
        stream.on('end', () => stream.end());
      },
    });
    const { world, gateway, server } = far;

    const client = await world.connect('outbound');
    client.end('hello world');
    assert.equal(await readToEnd(client), 'hello worldhello world');

    const [outer] = gateway.connects;
    const [inner] = server.connects;
    assert.equal(outer?.client, `URI:${SERVER}`);
    assert.equal(inner?.client, `URI:${SERVER}`);
    const { 'x-forwarded-network': network, ...others } = inner?.headers ?? {};
    assert.equal(network, 'west');
    assert.deepEqual(others, { ...outer?.headers });
    assert.deepEqual(Object.keys(others).sort(), [':authority', ':method', 'baggage', 'forwarded', 'traceparent']);
    assert.equal(others[':authority'], 'web.default.svc.cluster.local:80');
    const line = await lineOf(world);
    assert.equal(line['dst.hbone_addr'], 'web.default.svc.cluster.local:80');
    assert.equal(line['dst.service'], 'web.default.svc.cluster.local');
    assert.deepEqual(
      ['dst.workload', 'dst.namespace', 'dst.identity', 'dst.cluster'].map((name) => line[name]),
      ['web-v2', 'far', FAR, 'east1'],
    );
    assert.deepEqual([line['bytes_sent'], line['bytes_recv'], line['error']], [11, 22, undefined]);
  },
);

test('connections share the tunnel to the gateway and nothing inside it, which ends with them', bounded, async () => {
  await using far = await farWorld();
  const { world, gateway, server } = far;

  const clients = await Promise.all([1, 2, 3].map(() => world.connect('outbound')));
  for (const client of clients) client.write('hello');
  await Promise.all(clients.map((client) => once(client, 'data')));

  assert.equal(gateway.sessions.size, 1);
  assert.equal(server.sessions.size, 3);
  const ended = [...server.sessions].map((session) => closed(session));
  for (const client of clients) client.end();
  await Promise.all(ended);
  await world.line(() => world.ends.length === 3);
  assert.deepEqual(new Set(world.ends.map(({ fields }) => fields['error'])), new Set([undefined]));
  assert.equal(world.proxies.counts('p1')?.tunnelsOut, 1);
});

test('halves end on their own, and every byte arrives in both directions', bounded, async () => {
  const asked = randomBytes(9 * MIB);
  const answer = randomBytes(9 * MIB);
  const heard = createHash('sha256');
  await using far = await farWorld({
    onConnect: ({ stream }) => {
      stream.respond({ ':status': 200 });
      stream.on('data', (chunk: Buffer) => heard.update(chunk));
      // The answer begins when the question has ended: the other half must still be open.
      stream.on('end', () => stream.end(answer));
    },
  });

  const client = await far.world.connect('outbound');
  client.end(asked);
  const got = createHash('sha256');
  client.on('data', (chunk: Buffer) => got.update(chunk));
  await once(client, 'end');

  assert.equal(heard.digest('hex'), createHash('sha256').update(asked).digest('hex'));
  assert.equal(got.digest('hex'), createHash('sha256').update(answer).digest('hex'));
  const line = await lineOf(far.world);
  assert.deepEqual([line['bytes_sent'], line['bytes_recv'], line['error']], [9 * MIB, 9 * MIB, undefined]);
});

test('a reader that stops at the far end is waited for, not buffered for', bounded, async () => {
  const stopped = Promise.withResolvers<http2.ServerHttp2Stream>();
  await using far = await farWorld({
    onConnect: ({ stream }) => {
      stream.respond({ ':status': 200 });
      stopped.resolve(stream);
    },
  });

  const client = await far.world.connect('outbound');
  const sent = await fillUntilBlocked(client);
  // Windows of four hops: far below what an unbounded buffer would take.
  assert(sent < 64 * MIB, `${sent} bytes were taken`);

  const stream = await stopped.promise;
  let received = 0;
  stream.on('data', (chunk: Buffer) => (received += chunk.length));
  client.end();
  await once(stream, 'end');
  assert.equal(received, sent);
  stream.end();
});

test('a reset at the far end is a reset at the client', bounded, async () => {
  await using far = await farWorld({
    onConnect: ({ stream }) => {
      stream.respond({ ':status': 200 });
      stream.on('data', () => stream.close(NGHTTP2_CONNECT_ERROR));
    },
  });

  const client = await far.world.connect('outbound');
  const broken = new Promise<NodeJS.ErrnoException>((resolve) => client.once('error', resolve));
  client.write('hello');

  assert.equal((await broken).code, 'ECONNRESET');
  assert.equal((await lineOf(far.world))['error'], undefined);
});

test('a reset of the client is a reset at the far end, and takes the inner tunnel along', bounded, async () => {
  await using far = await farWorld();
  const client = await far.world.connect('outbound');
  client.write('hello');
  await once(client, 'data');
  const [inner] = far.server.connects;
  const [session] = far.server.sessions;
  assert(inner !== undefined && session !== undefined);
  const gone = Promise.all([closed(inner.stream), closed(session)]);

  client.resetAndDestroy();

  await gone;
  assert.equal(inner.stream.rstCode, NGHTTP2_CONNECT_ERROR);
  await lineOf(far.world);
});

test('a gateway that cuts the outer stream cuts the connection, and says so', bounded, async () => {
  await using far = await farWorld();
  const client = await far.world.connect('outbound');
  client.write('hello');
  await once(client, 'data');
  const broken = new Promise<NodeJS.ErrnoException>((resolve) => client.once('error', resolve));

  far.gateway.connects[0]?.stream.close(NGHTTP2_CONNECT_ERROR);

  assert.equal((await broken).code, 'ECONNRESET');
  assert.equal((await lineOf(far.world))['reason'], 'CV-TUNNEL-CLOSED');
});

test('a far end that comes on a revocation list is cut, while the gateway goes on', bounded, async () => {
  await using far = await farWorld();
  const { world, gateway } = far;
  const client = await world.connect('outbound');
  client.write('hello');
  await once(client, 'data');
  client.on('error', () => {});

  world.authority.crlsChanged([await revoking(FAR)]);

  await closed(client);
  const line = await lineOf(world);
  assert.deepEqual(
    [line['reason'], line['error']],
    ['CV-PEER-REVOKED', 'connection closed: peer certificate revoked by CRL'],
  );
  assert.equal(
    [...gateway.sessions].every((session) => session.closed),
    false,
  );
});

const refusals: readonly { readonly name: string; readonly reason: string; readonly options: FarOptions }[] = [
  {
    name: 'a far end of another identity is refused, though the gateway is right',
    reason: 'CV-PEER-IDENTITY',
    options: { identity: GATEWAY },
  },
  {
    name: 'the workload that the gateway leads to cannot stand for the service',
    reason: 'CV-PEER-IDENTITY',
    options: { identity: 'spiffe://cluster.local/ns/default/sa/far' },
  },
  {
    name: 'a gateway of another identity is refused, and never hears who is asked for',
    reason: 'CV-PEER-IDENTITY',
    options: { gatewayIdentity: FAR },
  },
  {
    name: 'a gateway that refuses is believed',
    reason: 'CV-CONNECT-FAILED',
    options: { gateway: ({ stream }) => stream.respond({ ':status': 503 }, { endStream: true }) },
  },
  {
    name: 'a far end that refuses by policy is believed',
    reason: 'CV-CONNECT-DENIED',
    options: { onConnect: ({ stream }) => stream.respond({ ':status': 401 }, { endStream: true }) },
  },
  {
    name: 'a far end that ends the handshake is given up',
    reason: 'CV-TLS-HANDSHAKE',
    options: {
      gateway: ({ stream }) => {
        stream.respond({ ':status': 200 });
        stream.end();
        stream.resume();
      },
    },
  },
  {
    name: 'a far end that speaks no TLS is given up',
    reason: 'CV-TLS-HANDSHAKE',
    options: {
      gateway: ({ stream }) => {
        stream.respond({ ':status': 200 });
        stream.end('HTTP/1.1 400 Bad Request\r\n\r\n');
        stream.resume();
      },
    },
  },
];

for (const { name, reason, options } of refusals) {
  test(name, bounded, async () => {
    await using far = await farWorld(options);
    const client = (await far.world.connect('outbound')).resume();
    client.write('hello');
    await closed(client);
    const line = await lineOf(far.world);
    assert.equal(line['reason'], reason);
    assert.deepEqual([line['bytes_sent'], line['bytes_recv']], [0, 0], 'bytes of the application left early');
    assert.equal(line['dst.workload'], 'gateway');
  });
}

test(
  'a handshake inside the tunnel that does not go on is given up in time, and leaves no stream',
  bounded,
  async () => {
    const clock = new FakeClock();
    const hello = Promise.withResolvers<http2.ServerHttp2Stream>();
    await using far = await farWorld({
      world: { clock },
      gateway: ({ stream }) => {
        stream.respond({ ':status': 200 });
        stream.once('data', () => hello.resolve(stream));
      },
    });
    const client = await far.world.connect('outbound');
    client.resume();
    const stream = await hello.promise;

    clock.advance(30_000);

    assert.equal((await lineOf(far.world))['reason'], 'CV-TLS-TIMEOUT');
    await closed(stream);
    assert.equal(stream.rstCode, NGHTTP2_CANCEL);
  },
);

test(
  'a pod that leaves while the way is opened ends the connection on record, and gives the way up',
  bounded,
  async () => {
    const hello = Promise.withResolvers<http2.ServerHttp2Stream>();
    await using far = await farWorld({
      gateway: ({ stream }) => {
        stream.respond({ ':status': 200 });
        stream.once('data', () => hello.resolve(stream));
      },
    });
    const client = await far.world.connect('outbound');
    client.resume();
    const stream = await hello.promise;

    await far.world.stop('immediate');

    assert.equal((await lineOf(far.world))['reason'], 'CV-DRAIN');
    await closed(stream);
  },
);
