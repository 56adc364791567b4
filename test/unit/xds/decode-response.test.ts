import assert from 'node:assert/strict';
import { test } from 'node:test';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import fc from 'fast-check';
import { ChangeLog } from '../../../src/base/change-log.ts';
import type { Clock } from '../../../src/base/clock.ts';
import { MeshError } from '../../../src/base/errors.ts';
import { RecordStore } from '../../../src/model/record-store.ts';
import { DeltaDiscoveryResponseSchema } from '../../../src/wire/pb/discovery_pb.ts';
import { AddressSchema } from '../../../src/wire/pb/workload_pb.ts';
import { type DecodeDeps, decodeResponse, updateOf } from '../../../src/xds/decode-response.ts';
import { readDeltaResponse } from '../../../src/xds/delta-response.ts';
import { TYPE_URL } from '../../../src/xds/type-url.ts';
import { anyText } from '../../support/any-text.ts';
import { FakeClock } from '../../support/fake-clock.ts';

const typeUrl = TYPE_URL.address;

function workload(uid: string, node = '') {
  const message = create(AddressSchema, { type: { case: 'workload', value: { uid, namespace: 'shop', node } } });
  return { name: uid, version: '1', resource: { typeUrl, value: toBinary(AddressSchema, message) } };
}

function encoded(resources: ReturnType<typeof workload>[], removedResources: string[] = []): Uint8Array {
  const message = create(DeltaDiscoveryResponseSchema, { typeUrl, nonce: 'n', resources, removedResources });
  return toBinary(DeltaDiscoveryResponseSchema, message);
}

/** A millisecond passes with each look; a pause is one turn. */
class BusyClock implements Clock {
  pauses = 0;
  #nowMs = 0;

  monotonicMs(): number {
    this.#nowMs += 1;
    return this.#nowMs;
  }

  wallMs(): number {
    return this.#nowMs;
  }

  after(_delayMs: number, fire: () => void): Disposable {
    this.pauses += 1;
    const turn = setImmediate(fire);
    return { [Symbol.dispose]: () => clearImmediate(turn) };
  }
}

const nothingKnown = (): undefined => undefined;

function decoding(clock: Clock): DecodeDeps {
  return { clock, records: new RecordStore() };
}

test('the outside of a response is what the codec reads', () => {
  const names = fc.array(anyText({ maxLength: 20 }), { maxLength: 5 });
  const response = fc.record({ typeUrl: fc.string(), nonce: fc.string(), names, removedResources: names });
  fc.assert(
    fc.property(response, (given) => {
      const resources = given.names.map((name) => ({ name }));
      const message = create(DeltaDiscoveryResponseSchema, { ...given, resources, controlPlane: { identifier: 'x' } });
      const bytes = toBinary(DeltaDiscoveryResponseSchema, message);
      const read = readDeltaResponse(bytes);
      const whole = fromBinary(DeltaDiscoveryResponseSchema, bytes);
      assert.deepEqual([read.typeUrl, read.nonce, read.removed], [whole.typeUrl, whole.nonce, whole.removedResources]);
      assert.equal(read.resources.count, given.names.length);
    }),
  );
});

test('any bytes are a response or a MeshError, and then decode or say why not', async () => {
  const good = encoded([workload('a')], ['b']);
  const mutated = fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 5 }).map((changes) => {
    const copy = good.slice();
    for (const [at, value] of changes) copy[at % copy.length] = value;
    return copy;
  });
  await fc.assert(
    fc.asyncProperty(fc.oneof(fc.uint8Array({ maxLength: 100 }), mutated), async (bytes) => {
      let response: ReturnType<typeof readDeltaResponse>;
      try {
        response = readDeltaResponse(bytes);
      } catch (error) {
        assert(error instanceof MeshError && error.code === 'CV-WIRE-MALFORMED', String(error));
        return;
      }
      const { resources, rejection } = await decodeResponse(response, nothingKnown, decoding(new BusyClock()));
      assert(rejection !== undefined || resources.length === response.resources.count);
    }),
  );
});

test('a large response is decoded in turns', async () => {
  const clock = new BusyClock();
  const response = readDeltaResponse(encoded(Array.from({ length: 2_000 }, (_, i) => workload(`w${i}`))));
  const { records } = await decodeResponse(response, nothingKnown, decoding(clock));
  assert.equal(records.workloads.size, 2_000);
  assert(clock.pauses >= 20, `${clock.pauses} pauses`);
});

test('of two resources with one key the last counts, and a removal in the same response wins', async () => {
  const response = readDeltaResponse(encoded([workload('a', 'old'), workload('a', 'new'), workload('b')]));
  const { records } = await decodeResponse(response, nothingKnown, decoding(new BusyClock()));
  const update = updateOf(records, new Set(['b', 'c']), false);
  assert.deepEqual(
    update.workloads.map(({ uid, node }) => `${uid} ${node}`),
    ['a new'],
  );
  assert.deepEqual(
    [update.removedWorkloads, update.removedServices, update.removedPolicies],
    [['b', 'c'], ['b', 'c'], []],
  );
});

test('what is known to be unchanged is not decoded, and kept under its key', async () => {
  const broken = { ...workload('a'), resource: { typeUrl, value: new Uint8Array([0xff]) } };
  const { resources, records, rejection } = await decodeResponse(
    readDeltaResponse(encoded([broken])),
    (name, version) => (name === 'a' && version === '1' ? 'key of a' : undefined),
    decoding(new BusyClock()),
  );
  assert.deepEqual([resources.map(({ key }) => key), records.workloads.size, rejection], [['key of a'], 0, undefined]);
});

test('a log of changes says each thing once, not more often than its period, and how much it left out', () => {
  const clock = new FakeClock();
  const log = new ChangeLog(clock, 1_000);
  const written: string[] = [];
  const note = (text: string): void => log.note(text, (leftOut) => written.push(`${text} ${leftOut}`));
  for (const text of ['a', 'a', 'b', 'c']) note(text);
  clock.advance(1_000);
  note('a');
  note('b');
  log.reset();
  clock.advance(1_000);
  note('b');
  assert.deepEqual(written, ['a 0', 'b 4', 'b 0']);
});
