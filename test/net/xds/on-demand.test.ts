/** On demand, against the delta ADS server of this repository: both ends of the protocol. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { silentLogger } from '../../../src/base/log.ts';
import { systemClock } from '../../../src/sys/system-clock.ts';
import { systemRandom } from '../../../src/sys/system-random.ts';
import { AuthorizationSchema } from '../../../src/wire/pb/authorization_pb.ts';
import { ServiceSchema, WorkloadSchema } from '../../../src/wire/pb/workload_pb.ts';
import { AdsService } from '../../../src/xds/server/ads-service.ts';
import { ResourceStore } from '../../../src/xds/server/resource-store.ts';
import { servedAuthorization, servedService, servedWorkload } from '../../../src/xds/server/served-resource.ts';
import { certificate, localhost, loopback, never, serve } from '../rpc/rpc-fixture.ts';
import { ADDRESS, POLICY, subject } from './xds-fixture.ts';

function control() {
  const store = new ResourceStore([ADDRESS, POLICY]);
  const anybody = { description: 'anybody', admit: () => undefined };
  const deps = {
    clock: systemClock,
    random: systemRandom,
    log: silentLogger,
    store,
    authenticate: async () => anybody,
  };
  return { store, service: new AdsService(deps, { quietMs: 1, maxMs: 10 }) };
}

function pod(name: string, address: readonly number[], fields: { node?: string; services?: readonly string[] } = {}) {
  const services = Object.fromEntries((fields.services ?? []).map((key) => [key, {}]));
  const addresses = [new Uint8Array(address)];
  return servedWorkload(
    create(WorkloadSchema, { uid: name, name, namespace: 'shop', addresses, node: fields.node ?? '', services }),
  );
}

function vip(hostname: string, address: readonly number[]) {
  const addresses = [{ address: new Uint8Array(address) }];
  return servedService(create(ServiceSchema, { name: hostname, namespace: 'shop', hostname, addresses }));
}

const MESH = [
  pod('web', [10, 0, 0, 1], { services: ['shop/cart'] }),
  pod('db', [10, 0, 0, 2]),
  pod('here', [10, 0, 0, 3], { node: 'node-1' }),
  vip('cart', [10, 9, 0, 1]),
];

test('nothing but the own node and the policies is told unasked; a demanded address is in the mesh when its answer is', async () => {
  const { store, service } = control();
  using _service = service;
  store.apply(ADDRESS, { upserts: MESH, removals: [] });
  const policy = create(AuthorizationSchema, { name: 'p', namespace: 'shop' });
  store.apply(POLICY, { upserts: [servedAuthorization(policy)], removals: [] });
  await using server = await serve(service.rpc);
  await using agent = subject(localhost(server), { isOnDemand: true });
  const uids = () => [...agent.index.workloads.all()].map(({ uid }) => uid).toSorted();
  await agent.until(() => agent.isReady && uids().length > 0, 'the workloads of the node');
  assert.deepEqual(uids(), ['here']);
  assert.equal([...agent.index.policies.accepted()].length, 1);

  await agent.client.fetch('/10.9.0.1', never);
  assert.deepEqual([uids(), agent.index.services.byKey('shop/cart')?.hostname], [['here', 'web'], 'cart']);
  await agent.client.fetch('/10.0.0.2', never);
  assert.deepEqual(uids(), ['db', 'here', 'web']);
  assert.equal(service.counts.nacks, 0);
});

test('the answer for an address that nobody has comes, too, and an address that appears later is pushed', async () => {
  const { store, service } = control();
  using _service = service;
  await using server = await serve(service.rpc);
  await using agent = subject(localhost(server), { isOnDemand: true });
  await agent.client.fetch('/10.0.0.2', never);
  assert.equal(agent.index.workloads.byUid('db'), undefined);
  store.apply(ADDRESS, { upserts: [pod('db', [10, 0, 0, 2])], removals: [] });
  await agent.until(() => agent.index.workloads.byUid('db') !== undefined, 'the push');
});

test('changes and removals of what was asked for follow by themselves', async () => {
  const { store, service } = control();
  using _service = service;
  store.apply(ADDRESS, { upserts: MESH, removals: [] });
  await using server = await serve(service.rpc);
  await using agent = subject(localhost(server), { isOnDemand: true });
  await agent.client.fetch('shop/cart', never);
  store.apply(ADDRESS, {
    upserts: [pod('web', [10, 0, 0, 1], { node: 'moved', services: ['shop/cart'] })],
    removals: [],
  });
  await agent.until(() => agent.index.workloads.byUid('web')?.node === 'moved', 'the change');
  store.apply(ADDRESS, { upserts: [], removals: ['web', 'db'] });
  await agent.until(() => agent.index.workloads.byUid('web') === undefined, 'the removal');
});

test('a demand while the control plane is away waits for it to come back; one that is given up does not', async () => {
  const first = control();
  using _first = first.service;
  const gone = await serve(first.service.rpc);
  await using agent = subject(localhost(gone), { isOnDemand: true });
  await agent.until(() => agent.isReady, 'readiness');
  const { port } = gone;
  await gone.stop(0);
  await agent.until(() => !agent.client.status.isConnected, 'the loss');

  const patience = new AbortController();
  const [kept, givenUp] = [agent.client.fetch('/10.0.0.2', never), agent.client.fetch('/10.0.0.1', patience.signal)];
  patience.abort();
  await assert.rejects(givenUp, { code: 'CV-MESH-SILENT' });
  assert.equal(agent.client.status.waiting, 1);

  const second = control();
  using _second = second.service;
  second.store.apply(ADDRESS, { upserts: MESH, removals: [] });
  await using _server = await serve(second.service.rpc, { listen: loopback(certificate, port) });
  await kept;
  assert.equal(agent.index.workloads.byUid('db')?.name, 'db');
  assert.deepEqual([agent.index.workloads.byUid('web'), agent.client.status.waiting], [undefined, 0]);
});

test('what was asked for before a loss is kept current after it, removals included', async () => {
  const first = control();
  using _first = first.service;
  first.store.apply(ADDRESS, { upserts: MESH, removals: [] });
  const gone = await serve(first.service.rpc);
  await using agent = subject(localhost(gone), { isOnDemand: true });
  for (const key of ['/10.0.0.1', '/10.0.0.2']) await agent.client.fetch(key, never);
  const { port } = gone;
  await gone.stop(0);

  const second = control();
  using _second = second.service;
  second.store.apply(ADDRESS, { upserts: [pod('web', [10, 0, 0, 1], { node: 'moved' })], removals: [] });
  await using _server = await serve(second.service.rpc, { listen: loopback(certificate, port) });
  await agent.until(() => agent.index.workloads.byUid('web')?.node === 'moved', 'the change');
  await agent.until(() => agent.index.workloads.byUid('db') === undefined, 'the removal');
});

test('many who ask for one key ask once, and all are answered', async () => {
  const { store, service } = control();
  using _service = service;
  store.apply(ADDRESS, { upserts: MESH, removals: [] });
  await using server = await serve(service.rpc);
  await using agent = subject(localhost(server), { isOnDemand: true });
  await agent.until(() => agent.isReady, 'readiness');
  const before = agent.updates.length;
  await Promise.all(Array.from({ length: 100 }, () => agent.client.fetch('/10.0.0.2', never)));
  assert.equal(agent.updates.length, before + 1);
});
