import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fromBinary } from '@bufbuild/protobuf';
import { silentLogger } from '../../../src/base/log.ts';
import { systemClock } from '../../../src/sys/system-clock.ts';
import { type DeltaDiscoveryRequest, DeltaDiscoveryRequestSchema } from '../../../src/wire/pb/discovery_pb.ts';
import { MeshFeed } from '../../../src/xds/mesh-feed.ts';
import { NODE } from '../../net/xds/xds-fixture.ts';

const metrics = {
  streamEnded: () => undefined,
  messageReceived: () => undefined,
  messageRejected: () => undefined,
  connected: () => undefined,
};

function decoded(request: Uint8Array | undefined): DeltaDiscoveryRequest {
  assert(request !== undefined);
  return fromBinary(DeltaDiscoveryRequestSchema, request);
}

/** As many as may wait. */
const LIMIT = 10_000;

test('a look-up beyond the limit is refused and leaves nothing behind: no question now, none on the next stream', async () => {
  const deps = {
    clock: systemClock,
    log: silentLogger,
    metrics,
    onUpdate: () => undefined,
    onReady: () => undefined,
  };
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
