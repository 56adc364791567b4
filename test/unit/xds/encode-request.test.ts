import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fromBinary } from '@bufbuild/protobuf';
import fc from 'fast-check';
import type { AdsRequest } from '../../../src/model/ads-state.ts';
import { systemClock } from '../../../src/sys/system-clock.ts';
import { DeltaDiscoveryRequestSchema } from '../../../src/wire/pb/discovery_pb.ts';
import { encodeFirstRequest } from '../../../src/xds/encode-request.ts';
import { NODE } from '../../net/xds/xds-fixture.ts';

function versions(count: number): Map<string, string> {
  return new Map(Array.from({ length: count }, (_, i) => [`name-${i}`, String(i)]));
}

const requests: fc.Arbitrary<AdsRequest> = fc.record(
  {
    typeUrl: fc.string(),
    isFirst: fc.boolean(),
    subscribe: fc.array(fc.string()),
    unsubscribe: fc.array(fc.string()),
    // Around the size of a slice, and names that no plain object may have.
    initialVersions: fc.oneof(
      fc.constantFrom(0, 1, 999, 1_000, 1_001, 2_000).map(versions),
      fc.constant(new Map([['__proto__', 'v']])),
    ),
    nonce: fc.string(),
    error: fc.string(),
  },
  { requiredKeys: ['typeUrl', 'isFirst', 'subscribe', 'unsubscribe', 'initialVersions', 'nonce'] },
);

test('what is encoded in slices is one request with everything in it', async () => {
  await fc.assert(
    fc.asyncProperty(requests, async (request) => {
      const bytes = await encodeFirstRequest(request, NODE, systemClock);
      const { node, errorDetail, initialResourceVersions, ...read } = fromBinary(DeltaDiscoveryRequestSchema, bytes);
      assert.deepEqual(new Map(Object.entries(initialResourceVersions)), request.initialVersions);
      assert.deepEqual([node?.id, errorDetail?.message], [request.isFirst ? NODE.id : undefined, request.error]);
      assert.deepEqual(
        [read.typeUrl, read.resourceNamesSubscribe, read.resourceNamesUnsubscribe, read.responseNonce],
        [request.typeUrl, request.subscribe, request.unsubscribe, request.nonce],
      );
    }),
    { numRuns: 50 },
  );
});

test('a large echo is encoded in many turns of the event loop', async () => {
  let turns = 0;
  const clock = {
    ...systemClock,
    after: (delayMs: number, fire: () => void) => {
      turns += 1;
      return systemClock.after(delayMs, fire);
    },
  };
  const fields = { typeUrl: 't', isFirst: true, subscribe: [], unsubscribe: [], nonce: '' };
  await encodeFirstRequest({ ...fields, initialVersions: versions(20_500) }, NODE, clock);
  assert.equal(turns, 20);
});
