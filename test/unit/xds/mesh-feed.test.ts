import assert from 'node:assert/strict';
import { test } from 'node:test';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { silentLogger } from '../../../src/base/log.ts';
import { systemClock } from '../../../src/sys/system-clock.ts';
import {
  type DeltaDiscoveryRequest,
  DeltaDiscoveryRequestSchema,
  DeltaDiscoveryResponseSchema,
} from '../../../src/wire/pb/discovery_pb.ts';
import { AddressSchema } from '../../../src/wire/pb/workload_pb.ts';
import { MeshFeed } from '../../../src/xds/mesh-feed.ts';
import { ADDRESS, NODE } from '../../net/xds/xds-fixture.ts';

const metrics = {
  streamEnded: () => undefined,
  messageReceived: () => undefined,
  messageRejected: () => undefined,
  connected: () => undefined,
};

const deps = {
  clock: systemClock,
  log: silentLogger,
  metrics,
  onUpdate: () => undefined,
  onReady: () => undefined,
};

function decoded(request: Uint8Array | undefined): DeltaDiscoveryRequest {
  assert(request !== undefined);
  return fromBinary(DeltaDiscoveryRequestSchema, request);
}

/** As many as may wait. */
const LIMIT = 10_000;

test('a look-up beyond the limit is refused and leaves nothing behind: no question now, none on the next stream', async () => {
  const feed = new MeshFeed({ node: NODE, isOnDemand: true }, deps);
  const callers: AbortController[] = [];
  const ask = (key: string): Promise<boolean> => {
    const caller = new AbortController();
    callers.push(caller);
    return feed.demand(key, caller.signal);
  };
  await feed.opened();
  const waiting = Array.from({ length: LIMIT }, (_, at) => ask(`/key-${at}`));
  await assert.rejects(ask('/one-too-many'), { code: 'CV-LIMIT' });
  assert.deepEqual([decoded(feed.question()).resourceNamesSubscribe.length, feed.status.waiting], [LIMIT, LIMIT]);

  const [addresses] = await feed.opened();
  assert.equal(Object.keys(decoded(addresses).initialResourceVersions).length, LIMIT);
  for (const caller of callers) caller.abort();
  await Promise.all(waiting);
  assert.equal(feed.status.waiting, 0);
});

/** A response that tells these workloads, in this version, and takes those away. */
function told(names: readonly string[], version = '1', removedResources: string[] = []): Uint8Array {
  const resources = names.map((name) => {
    const value = create(AddressSchema, { type: { case: 'workload', value: { uid: name, namespace: 'shop' } } });
    return { name, version, resource: { typeUrl: ADDRESS, value: toBinary(AddressSchema, value) } };
  });
  const fields = { typeUrl: ADDRESS, nonce: 'n', resources, removedResources };
  return toBinary(DeltaDiscoveryResponseSchema, create(DeltaDiscoveryResponseSchema, fields));
}

const AT_THE_BOUND: readonly {
  readonly name: string;
  readonly response: Uint8Array;
  readonly held: number;
  readonly refusal?: string;
}[] = [
  {
    name: 'an update that would bring more than may be held is refused, and what is held stays',
    response: told(['c']),
    held: 2,
    refusal: 'more than 2 resources in all',
  },
  { name: 'an update of what is held brings nothing more', response: told(['a', 'b'], '2'), held: 2 },
  { name: 'an update that takes away as much as it brings is no more', response: told(['c'], '1', ['a']), held: 2 },
  {
    name: 'what is taken away makes no room unless it was held',
    response: told(['c'], '1', ['d']),
    held: 2,
    refusal: 'more than 2 resources in all',
  },
];
for (const { name, response, held, refusal } of AT_THE_BOUND) {
  test(name, async () => {
    const feed = new MeshFeed({ node: NODE, isOnDemand: false, maxHeld: 2 }, deps);
    await feed.opened();
    await feed.take(told(['a', 'b']));

    const { request } = await feed.take(response);

    assert.equal(decoded(request).errorDetail?.message, refusal);
    assert.equal(feed.status.refusal, refusal && `an update was refused: ${refusal}`);
    assert.equal(feed.status.addresses, held);
  });
}
