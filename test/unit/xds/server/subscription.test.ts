import assert from 'node:assert/strict';
import { test } from 'node:test';
import { create, type MessageInitShape } from '@bufbuild/protobuf';
import fc from 'fast-check';
import {
  type DeltaDiscoveryRequest,
  DeltaDiscoveryRequestSchema,
  type DeltaDiscoveryResponse,
} from '../../../../src/wire/pb/discovery_pb.ts';
import { ResourceStore, type ServedResource } from '../../../../src/xds/server/resource-store.ts';
import { Subscription } from '../../../../src/xds/server/subscription.ts';

const TYPE = 'type.googleapis.com/istio.workload.Address';
const NODE = 'node-1';

function storeOf(...resources: readonly ServedResource[]): ResourceStore {
  const store = new ResourceStore([TYPE]);
  store.apply(TYPE, { upserts: resources, removals: [] });
  return store;
}

function resource(name: string, fields: Partial<ServedResource> = {}, content = 1): ServedResource {
  return { name, bytes: new Uint8Array([content]), aliases: [], memberOf: [], node: '', ...fields };
}

function request(fields: MessageInitShape<typeof DeltaDiscoveryRequestSchema> = {}): DeltaDiscoveryRequest {
  return create(DeltaDiscoveryRequestSchema, { typeUrl: TYPE, ...fields });
}

const ON_DEMAND = { resourceNamesSubscribe: ['*'], resourceNamesUnsubscribe: ['*'] };

function subscribe(store: ResourceStore, first = request()): Subscription {
  let nonces = 0;
  const nextNonce = (): string => `nonce-${(nonces += 1)}`;
  const subscription = new Subscription(first, { typeUrl: TYPE, store, nodeName: NODE, nextNonce });
  store.subscribe((_, names) => subscription.changed(names));
  return subscription;
}

function told(response: DeltaDiscoveryResponse | undefined): { sent: string[]; removed: string[] } | undefined {
  if (response === undefined) return undefined;
  return { sent: response.resources.map(({ name }) => name), removed: response.removedResources };
}

function versionOf(store: ResourceStore, name: string): string {
  return store.get(TYPE, name)?.version ?? assert.fail(`${name} is not stored`);
}

test('a wildcard is told everything first, then what changes, then nothing', () => {
  const store = storeOf(resource('a'), resource('b'));
  const subscription = subscribe(store);
  assert.deepEqual(told(subscription.next()), { sent: ['a', 'b'], removed: [] });
  assert.equal(subscription.next(), undefined);
  store.apply(TYPE, { upserts: [resource('a', {}, 2), resource('b'), resource('c')], removals: ['x'] });
  assert.deepEqual(told(subscription.next()), { sent: ['a', 'c'], removed: [] }, 'b is as it was, x never was');
  store.apply(TYPE, { upserts: [], removals: ['b'] });
  assert.deepEqual(told(subscription.next()), { sent: [], removed: ['b'] });
});

test('an empty store is told too: a client is ready only after its first response', () => {
  const response = subscribe(storeOf()).next();
  assert.deepEqual(told(response), { sent: [], removed: [] });
  assert.equal(response?.nonce, 'nonce-1');
});

test('after a reconnect only what differs is sent, and what is gone is removed', () => {
  const store = storeOf(resource('same'), resource('changed', {}, 2), resource('new'));
  const echoed = { same: versionOf(store, 'same'), changed: 'old', gone: 'old' };
  const subscription = subscribe(store, request({ initialResourceVersions: echoed }));
  assert.deepEqual(told(subscription.next()), { sent: ['changed', 'new'], removed: ['gone'] });
});

test('"nothing yet" is answered with nothing, then what runs on the node of the client follows', () => {
  const store = storeOf(resource('near', { node: NODE }), resource('far', { node: 'node-2' }));
  const subscription = subscribe(store, request(ON_DEMAND));
  assert.deepEqual(told(subscription.next()), { sent: [], removed: [] });
  assert.deepEqual(told(subscription.next()), { sent: ['near'], removed: [] });
  store.apply(TYPE, { upserts: [resource('near', { node: NODE }, 2), resource('far', {}, 2)], removals: [] });
  assert.deepEqual(told(subscription.next()), { sent: ['near'], removed: [] });
});

test('an address is answered under its name with the address as alias, and once more named like the address', () => {
  const store = storeOf(resource('uid', { aliases: ['net/10.0.0.1', 'net/10.0.0.2'] }));
  const subscription = subscribe(store, request(ON_DEMAND));
  subscription.next();
  subscription.receive(request({ resourceNamesSubscribe: ['net/10.0.0.1'] }));
  const response = subscription.next();
  assert.deepEqual(told(response), { sent: ['uid', 'net/10.0.0.1'], removed: [] });
  assert.deepEqual(response?.resources[0]?.aliases, ['net/10.0.0.1']);
  store.apply(TYPE, { upserts: [], removals: ['uid'] });
  assert.deepEqual(told(subscription.next()), { sent: [], removed: ['uid'] });
});

test('a service is answered with its endpoints, and an endpoint that joins later follows', () => {
  const store = storeOf(resource('shop/cart'), resource('one', { memberOf: ['shop/cart'] }), resource('other'));
  const subscription = subscribe(store, request(ON_DEMAND));
  subscription.next();
  subscription.receive(request({ resourceNamesSubscribe: ['shop/cart'] }));
  assert.deepEqual(told(subscription.next()), { sent: ['shop/cart', 'one'], removed: [] });
  store.apply(TYPE, {
    upserts: [resource('two', { memberOf: ['shop/cart'] }), resource('other', {}, 2)],
    removals: [],
  });
  assert.deepEqual(told(subscription.next()), { sent: ['two'], removed: [] });
});

test('an unknown key is removed, so that nobody waits for it, and sent once it exists', () => {
  const store = storeOf();
  const subscription = subscribe(store, request(ON_DEMAND));
  subscription.next();
  subscription.receive(request({ resourceNamesSubscribe: ['uid'] }));
  assert.deepEqual(told(subscription.next()), { sent: [], removed: ['uid'] });
  store.apply(TYPE, { upserts: [resource('uid')], removals: [] });
  assert.deepEqual(told(subscription.next()), { sent: ['uid'], removed: [] });
});

test('a name no longer asked for is not told', () => {
  const store = storeOf();
  const subscription = subscribe(store, request(ON_DEMAND));
  subscription.next();
  subscription.receive(request({ resourceNamesSubscribe: ['uid'] }));
  subscription.next();
  subscription.receive(request({ resourceNamesUnsubscribe: ['uid'] }));
  store.apply(TYPE, { upserts: [resource('uid')], removals: [] });
  assert.equal(subscription.next(), undefined);
});

test('a refusal is told apart from an acknowledgement and from an answer that comes too late', () => {
  const store = storeOf(resource('a'));
  const subscription = subscribe(store);
  const first = subscription.next();
  const errorDetail = { message: 'a: no' };
  assert.deepEqual(subscription.receive(request({ responseNonce: first?.nonce ?? '', errorDetail })), {
    kind: 'nack',
    reason: 'a: no',
  });
  assert.equal(subscription.next(), undefined, 'nothing is sent again until it changes');
  store.apply(TYPE, { upserts: [resource('a', {}, 2)], removals: [] });
  const second = subscription.next();
  assert.deepEqual(subscription.receive(request({ responseNonce: first?.nonce ?? '' })), { kind: 'stale' });
  assert.deepEqual(subscription.receive(request({ responseNonce: second?.nonce ?? '' })), { kind: 'ack' });
});

test('a stream cannot ask for names without end', () => {
  const subscription = subscribe(storeOf(), request(ON_DEMAND));
  const names = Array.from({ length: 100_001 }, (_, i) => `name-${i}`);
  assert.throws(() => subscription.receive(request({ resourceNamesSubscribe: names })), /100000 names/);
});

/** What a client holds after each response, as the reference applies it: by content name. */
class Client {
  readonly held = new Map<string, string>();
  take(response: DeltaDiscoveryResponse | undefined): void {
    for (const { name, version } of response?.resources ?? []) this.held.set(name, version);
    for (const name of response?.removedResources ?? []) this.held.delete(name);
  }
}

test('whatever happens between responses and reconnects, a wildcard client ends with what the store has', () => {
  const name = fc.constantFrom('a', 'b', 'c', 'd');
  const step = fc.oneof(
    fc.record({ kind: fc.constant('put' as const), name, content: fc.nat(3) }),
    fc.record({ kind: fc.constant('remove' as const), name }),
    fc.record({ kind: fc.constantFrom('respond' as const, 'reconnect' as const) }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
      const store = storeOf();
      const client = new Client();
      let subscription = subscribe(store);
      for (const item of steps) {
        if (item.kind === 'put') store.apply(TYPE, { upserts: [resource(item.name, {}, item.content)], removals: [] });
        else if (item.kind === 'remove') store.apply(TYPE, { upserts: [], removals: [item.name] });
        else if (item.kind === 'respond') client.take(subscription.next());
        else subscription = subscribe(store, request({ initialResourceVersions: Object.fromEntries(client.held) }));
      }
      client.take(subscription.next());
      const stored = [...store.all(TYPE)].map(({ name: key, version }) => [key, version] as const);
      assert.deepEqual(Object.fromEntries(client.held), Object.fromEntries(stored));
    }),
  );
});
