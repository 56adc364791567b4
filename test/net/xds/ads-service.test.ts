import assert from 'node:assert/strict';
import { test } from 'node:test';
import { create, fromBinary, type MessageInitShape, toBinary } from '@bufbuild/protobuf';
import { silentLogger } from '../../../src/base/log.ts';
import type { RpcChannel } from '../../../src/rpc/channel.ts';
import { rpcRefusal } from '../../../src/rpc/status.ts';
import { systemClock } from '../../../src/sys/system-clock.ts';
import { systemRandom } from '../../../src/sys/system-random.ts';
import { AuthorizationSchema } from '../../../src/wire/pb/authorization_pb.ts';
import {
  AggregatedDiscoveryService,
  DeltaDiscoveryRequestSchema,
  type DeltaDiscoveryResponse,
  DeltaDiscoveryResponseSchema,
} from '../../../src/wire/pb/discovery_pb.ts';
import { ServiceSchema, WorkloadSchema } from '../../../src/wire/pb/workload_pb.ts';
import { AdsService, type Caller } from '../../../src/xds/server/ads-service.ts';
import { ResourceStore } from '../../../src/xds/server/resource-store.ts';
import { servedAuthorization, servedService, servedWorkload } from '../../../src/xds/server/served-resource.ts';
import { channelTo, localhost, never, serve } from '../rpc/rpc-fixture.ts';

const ADDRESS = 'type.googleapis.com/istio.workload.Address';
const AUTHORIZATION = 'type.googleapis.com/istio.security.Authorization';
const node = { id: 'ztunnel~10.0.0.1~a.b~b.svc.cluster.local' };
const anybody: Caller = { description: 'anybody', admit: () => undefined };

function control(authenticate: () => Promise<Caller> = async () => anybody) {
  const store = new ResourceStore([ADDRESS, AUTHORIZATION]);
  const deps = { clock: systemClock, random: systemRandom, log: silentLogger, store, authenticate };
  const service = new AdsService(deps, { quietMs: 1, maxMs: 10 });
  return { store, service };
}

function request(fields: MessageInitShape<typeof DeltaDiscoveryRequestSchema>): Uint8Array {
  return toBinary(DeltaDiscoveryRequestSchema, create(DeltaDiscoveryRequestSchema, { typeUrl: ADDRESS, ...fields }));
}

/** One stream, spoken by hand. */
function open(channel: RpcChannel) {
  const call = channel.duplex(AggregatedDiscoveryService.method.deltaAggregatedResources, never);
  return {
    ask: (fields: MessageInitShape<typeof DeltaDiscoveryRequestSchema>) => call.send(request(fields)),
    told: async (): Promise<DeltaDiscoveryResponse> => {
      const bytes = await call.read();
      assert(bytes !== undefined, 'the stream ended');
      return fromBinary(DeltaDiscoveryResponseSchema, bytes);
    },
  };
}

function cart(port = 80) {
  return servedService(
    create(ServiceSchema, { name: 'cart', namespace: 'shop', hostname: 'cart', ports: [{ servicePort: port }] }),
  );
}

test('both types are answered, and a change is pushed by itself', async () => {
  const { store, service } = control();
  using _service = service;
  await using server = await serve(service.rpc);
  using channel = channelTo(localhost(server));
  store.apply(ADDRESS, { upserts: [cart()], removals: [] });
  const policy = create(AuthorizationSchema, { name: 'only-web', namespace: 'shop' });
  store.apply(AUTHORIZATION, { upserts: [servedAuthorization(policy)], removals: [] });
  const stream = open(channel);
  await stream.ask({ node });
  await stream.ask({ typeUrl: AUTHORIZATION });
  const first = await stream.told();
  assert.deepEqual([first.typeUrl, first.resources.map(({ name }) => name)], [ADDRESS, ['shop/cart']]);
  const second = await stream.told();
  assert.deepEqual([second.typeUrl, second.resources.map(({ name }) => name)], [AUTHORIZATION, ['shop/only-web']]);

  store.apply(ADDRESS, { upserts: [cart(81)], removals: [] });
  const pushed = await stream.told();
  assert.deepEqual(
    pushed.resources.map(({ name }) => name),
    ['shop/cart'],
  );
  assert.notEqual(pushed.resources[0]?.version, first.resources[0]?.version);
  assert.notEqual(pushed.nonce, first.nonce);
});

test('a workload is found by its address', async () => {
  const { store, service } = control();
  using _service = service;
  await using server = await serve(service.rpc);
  using channel = channelTo(localhost(server));
  const workload = create(WorkloadSchema, { uid: 'uid', network: 'n', addresses: [new Uint8Array([10, 0, 0, 1])] });
  store.apply(ADDRESS, { upserts: [servedWorkload(workload)], removals: [] });
  const stream = open(channel);
  await stream.ask({ node, resourceNamesSubscribe: ['*'], resourceNamesUnsubscribe: ['*'] });
  assert.deepEqual((await stream.told()).resources, []);
  await stream.ask({ resourceNamesSubscribe: ['n/10.0.0.1'] });
  assert.deepEqual(
    (await stream.told()).resources.map(({ name }) => name),
    ['uid', 'n/10.0.0.1'],
  );
});

test('changes that come together are one response', async () => {
  const { store, service } = control();
  using _service = service;
  await using server = await serve(service.rpc);
  using channel = channelTo(localhost(server));
  const stream = open(channel);
  await stream.ask({ node });
  await stream.told();
  for (let port = 1; port <= 500; port += 1) store.apply(ADDRESS, { upserts: [cart(port)], removals: [] });
  const { resources } = await stream.told();
  assert.equal(resources.length, 1);
  assert.equal(resources[0]?.version, store.get(ADDRESS, 'shop/cart')?.version);
});

for (const { name, fields, authenticate, status } of [
  { name: 'without a node id', fields: {}, authenticate: async () => anybody, status: 'INVALID_ARGUMENT' },
  {
    name: 'from nobody known',
    fields: { node },
    authenticate: async () => {
      throw rpcRefusal('UNAUTHENTICATED', 'no token');
    },
    status: 'UNAUTHENTICATED',
  },
  {
    name: 'for a node that is not its own',
    fields: { node },
    authenticate: async () => ({
      description: 'somebody',
      admit: () => {
        throw rpcRefusal('PERMISSION_DENIED', 'not your node');
      },
    }),
    status: 'PERMISSION_DENIED',
  },
]) {
  test(`a stream ${name} is refused with ${status}, and no session is left`, async () => {
    const { service } = control(authenticate);
    using _service = service;
    await using server = await serve(service.rpc);
    using channel = channelTo(localhost(server));
    const stream = open(channel);
    void stream.ask(fields);
    await assert.rejects(stream.told(), (error: Error) => error.message.includes(status));
    assert.equal(service.counts.streams, 0);
  });
}

test('a client that goes leaves no session', async () => {
  const { service } = control();
  using _service = service;
  await using server = await serve(service.rpc);
  {
    using channel = channelTo(localhost(server));
    const gone = new AbortController();
    const call = channel.duplex(AggregatedDiscoveryService.method.deltaAggregatedResources, gone.signal);
    void call.send(request({ node }));
    await call.read();
    assert.equal(service.counts.streams, 1);
    gone.abort();
  }
  while (service.counts.streams > 0) await new Promise((resolve) => setTimeout(resolve, 5));
});
