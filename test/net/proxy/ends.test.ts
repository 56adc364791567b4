/** What an application sees at the end of its connection: a reset when it was refused, failed or cut, an end when all is said. */
import assert from 'node:assert/strict';
import http2 from 'node:http2';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { HostPort } from '../../../src/base/ip.ts';
import { EMPTY_MESH, type MeshState } from '../../../src/model/mesh-index.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { Client } from '../../support/mesh-traffic.ts';
import { until } from '../../support/until.ts';
import { atAddress, policy, service, vip, workload } from '../../unit/model/sample-mesh.ts';
import { type Connect, ForeignServer } from './foreign-server.ts';
import { CLIENT, OPEN_MESH, ProxyWorld, proxySettingsOfTests } from './proxy-world.ts';

const bounded = { timeout: 90_000 };
const WAYPOINT = 'spiffe://cluster.local/ns/default/sa/waypoint';
const FAR = '10.0.0.9';
const NOWHERE = '10.0.0.8';
const { NGHTTP2_CANCEL, NGHTTP2_CONNECT_ERROR, NGHTTP2_INTERNAL_ERROR } = http2.constants;
const FORBIDDEN: MeshState = { ...OPEN_MESH, policies: [policy('nobody')] };
const IDLE_MS = 1_000;

/** `FAR` is reached through the waypoint at `address`; behind the address of a service is nothing. */
function meshBehind({ ip, port }: HostPort): MeshState {
  const waypoint = atAddress(ip, { hbonePort: port });
  const workloads = [
    workload('server', { ips: ['127.0.0.2'] }),
    workload('waypoint', { ips: [ip] }),
    workload('far', { ips: [FAR], waypoint }),
  ];
  return { ...EMPTY_MESH, workloads, services: [service('empty', { vips: [vip(NOWHERE)] })] };
}

interface Scene extends AsyncDisposable {
  readonly world: ProxyWorld;
  readonly server: ForeignServer;
  readonly clock: FakeClock;
}

type Options = ConstructorParameters<typeof ProxyWorld>[0];

async function scene(
  onConnect: (connect: Connect) => void,
  options: Options = {},
  identity = WAYPOINT,
): Promise<Scene> {
  const server = await ForeignServer.start(identity, onConnect);
  const clock = new FakeClock();
  const world = new ProxyWorld({ clock, mesh: meshBehind(await server.listen()), ...options });
  world.target = { ip: FAR, port: 80 };
  return {
    world,
    server,
    clock,
    async [Symbol.asyncDispose]() {
      await world[Symbol.asyncDispose]();
      await server[Symbol.asyncDispose]();
    },
  };
}

function answer({ stream }: Connect): void {
  stream.respond({ ':status': 200 });
}

function nothing(): void {}

interface Refusal {
  readonly listener: 'outbound' | 'plaintext';
  readonly make: () => Promise<Scene>;
  /** What is yet to happen once the clients have connected. */
  readonly after?: (scene: Scene) => Promise<void> | void;
  readonly reason: string;
}

/** A port on which nobody listens. */
async function freePort(): Promise<HostPort> {
  await using server = await ForeignServer.start(WAYPOINT, nothing);
  return await server.listen();
}

async function aimed(made: Promise<Scene>, target: HostPort): Promise<Scene> {
  const scene = await made;
  scene.world.target = target;
  return scene;
}

async function asked({ server }: Scene): Promise<void> {
  await until('both have asked', () => server.connects.length >= 2);
}

async function held({ world }: Scene): Promise<void> {
  await until('both are open', () => world.proxies.usage()[0]?.openConnections === 2);
}

const NONE = { ...proxySettingsOfTests.budget, connections: 0 };

const REFUSALS: Readonly<Record<string, Refusal>> = {
  'called the agent itself': {
    listener: 'outbound',
    make: () => aimed(scene(nothing), { ip: '127.0.0.1', port: 15_001 }),
    reason: 'CV-SELF-CALL',
  },
  'no healthy endpoint': {
    listener: 'outbound',
    make: () => aimed(scene(nothing), { ip: NOWHERE, port: 80 }),
    reason: 'CV-NO-ENDPOINT',
  },
  'the limit of the pod': {
    listener: 'outbound',
    make: () => scene(nothing, { settings: { maxConnections: 0 } }),
    reason: 'CV-LIMIT',
  },
  'the budget of the pod': {
    listener: 'outbound',
    make: () => scene(nothing, { settings: { budget: NONE } }),
    after: async (made) => {
      await held(made);
      for (let looks = 0; looks < 60; looks++) {
        made.clock.advance(20);
        await nextTurn();
      }
    },
    reason: 'CV-BUDGET-CONNECTIONS',
  },
  'nobody at the other end of the tunnel': {
    listener: 'outbound',
    make: async () => scene(nothing, { mesh: meshBehind(await freePort()) }),
    reason: 'CV-TUNNEL-REFUSED',
  },
  'somebody else at the other end of the tunnel': {
    listener: 'outbound',
    make: () => scene(nothing, {}, CLIENT),
    reason: 'CV-PEER-IDENTITY',
  },
  'CONNECT refused by policy': {
    listener: 'outbound',
    make: () => scene(({ stream }) => stream.respond({ ':status': 401 }, { endStream: true })),
    reason: 'CV-CONNECT-DENIED',
  },
  'CONNECT not carried out': {
    listener: 'outbound',
    make: () => scene(({ stream }) => stream.respond({ ':status': 503 }, { endStream: true })),
    reason: 'CV-CONNECT-FAILED',
  },
  'CONNECT given up by the peer': {
    listener: 'outbound',
    make: () => scene(({ stream }) => stream.close(NGHTTP2_CANCEL)),
    reason: 'CV-CONNECT-FAILED',
  },
  'CONNECT never answered': {
    listener: 'outbound',
    make: () => scene(nothing, { settings: { responseTimeoutMs: 1_000 } }),
    after: async (made) => {
      await asked(made);
      made.clock.advance(1_000);
    },
    reason: 'CV-CONNECT-TIMEOUT',
  },
  'the peer dead before its answer': {
    listener: 'outbound',
    make: () => scene(nothing),
    after: async (made) => {
      await asked(made);
      made.server.die();
    },
    reason: 'CV-TUNNEL-CLOSED',
  },
  'the pod gone before there is an answer': {
    listener: 'outbound',
    make: () => scene(nothing),
    after: async (made) => {
      await asked(made);
      await made.world.stop('immediate');
    },
    reason: 'CV-DRAIN',
  },
  'a policy, without an identity': {
    listener: 'plaintext',
    make: async () => {
      const made = await scene(nothing, { mesh: FORBIDDEN });
      return await aimed(Promise.resolve(made), await made.world.app());
    },
    reason: 'CV-POLICY-NOT-ALLOWED',
  },
  'no application': {
    listener: 'plaintext',
    make: async () => await aimed(scene(nothing, { mesh: OPEN_MESH }), await freePort()),
    reason: 'CV-APP-REFUSED',
  },
};

for (const [cause, { listener, make, after, reason }] of Object.entries(REFUSALS)) {
  test(
    `${listener}, refused for ${cause}: the application sees a reset, whether it has spoken or not`,
    bounded,
    async () => {
      await using made = await make();
      const { world } = made;
      const [silent, speaking] = [world.dial(listener), world.dial(listener)];
      speaking.write('unread');
      const clients = [silent, speaking].map((socket) => new Client(socket));
      await after?.(made);
      assert.deepEqual(await Promise.all(clients.map((client) => client.ended())), ['reset', 'reset']);
      assert.deepEqual(
        clients.map(({ bytes }) => bytes),
        [0, 0],
      );
      await world.line(() => world.ends.length === 2);
      assert.deepEqual(
        world.ends.map(({ fields }) => fields['reason']),
        [reason, reason],
      );
    },
  );
}

interface End {
  readonly options?: Options;
  /** What ends a connection on which bytes have gone both ways. */
  readonly by: (scene: Scene, connect: Connect) => Promise<void> | void;
  readonly seen: 'reset' | 'end';
  readonly reason?: string;
}

const ENDS: Readonly<Record<string, End>> = {
  'the peer dies': {
    by: ({ server }) => server.die(),
    seen: 'reset',
    reason: 'CV-TUNNEL-CLOSED',
  },
  'the peer resets the stream because of a defect': {
    by: (_scene, { stream }) => stream.close(NGHTTP2_INTERNAL_ERROR),
    seen: 'reset',
    reason: 'CV-TUNNEL-CLOSED',
  },
  'the far application resets': { by: (_scene, { stream }) => stream.close(NGHTTP2_CONNECT_ERROR), seen: 'reset' },
  'the deadline of a drain is over': {
    options: { drainGraceMs: 10_000 },
    by: async ({ world, clock }) => {
      void world.stop('graceful');
      for (let seconds = 0; world.ends.length === 0; seconds++) {
        clock.advance(1_000);
        await nextTurn();
      }
    },
    seen: 'reset',
    reason: 'CV-DRAIN',
  },
  'nothing has moved for long': {
    options: { settings: { idleTimeoutMs: IDLE_MS } },
    by: ({ clock }) => {
      for (let periods = 0; periods < 2; periods++) clock.advance(IDLE_MS);
    },
    seen: 'reset',
    reason: 'CV-IDLE',
  },
  'the far application ends': { by: (_scene, { stream }) => void stream.end(), seen: 'end' },
  'a reference at the other end needs the stream no more': {
    by: (_scene, { stream }) => stream.close(NGHTTP2_CANCEL),
    seen: 'end',
  },
};

for (const [what, { options, by, seen, reason }] of Object.entries(ENDS)) {
  test(
    `outbound, after bytes: when ${what}, the application sees ${seen === 'end' ? 'an end' : 'a reset'}`,
    bounded,
    async () => {
      await using made = await scene(answer, options);
      const { world, server } = made;
      const client = new Client(world.dial('outbound'));
      client.socket.write('question');
      await until('it is asked', () => server.connects[0] !== undefined);
      const connect = server.connects[0] ?? assert.fail();
      connect.stream.write('answer');
      await client.atLeast('answer'.length);
      await by(made, connect);
      assert.equal(await client.ended(), seen);
      client.socket.end();
      await world.line(() => world.ends.length === 1);
      assert.equal(world.ends[0]?.fields['reason'], reason);
      assert.equal(client.text, 'answer');
    },
  );
}

test('a tunnel stream that opens for a connection which was cut meanwhile is reset at once', bounded, async () => {
  const asked = Promise.withResolvers<Connect>();
  await using here = await scene(asked.resolve);
  await here.world.connect('outbound');
  const { stream } = await asked.promise;
  const closed = new Promise<void>((resolve) => stream.on('error', () => {}).once('close', resolve));

  assert.equal(here.world.proxies.shed(1), 1);
  stream.respond({ ':status': 200 });

  await closed;
  assert.equal(stream.rstCode, NGHTTP2_CONNECT_ERROR);
  assert.deepEqual(
    here.world.ends.map(({ fields }) => fields['reason']),
    ['CV-HOLD'],
  );
});
