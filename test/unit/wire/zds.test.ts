import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { MeshError } from '../../../src/base/errors.ts';
import {
  decodeAck,
  decodeHello,
  decodeRequest,
  encodeAck,
  encodeHello,
  encodeRequest,
  MAX_ZDS_BYTES,
  type ZdsRequest,
} from '../../../src/wire/zds.ts';
import { anyText } from '../../support/any-text.ts';

const info = { name: 'web-0', namespace: 'shop', serviceAccount: 'web' };

/** Bytes as the reference writes them. */
const packets: readonly { readonly name: string; readonly hex: string; readonly request: ZdsRequest }[] = [
  {
    name: 'an Add with its workload',
    hex: '0a 19 0a 03 75 69 64 12 12 0a 05 77 65 62 2d 30 12 04 73 68 6f 70 1a 03 77 65 62',
    request: { kind: 'add', uid: 'uid', workload: info },
  },
  {
    name: 'an Add without a workload, which only the next layer refuses',
    hex: '0a 05 0a 03 75 69 64',
    request: { kind: 'add', uid: 'uid' },
  },
  { name: 'a Del, whose uid is field 2', hex: '12 05 12 03 75 69 64', request: { kind: 'del', uid: 'uid' } },
  { name: 'a Keep, which is field 5', hex: '2a 05 0a 03 75 69 64', request: { kind: 'keep', uid: 'uid' } },
  { name: 'SnapshotSent', hex: '1a 00', request: { kind: 'snapshot-sent' } },
];

for (const { name, hex, request } of packets) {
  test(`${name} is these bytes, both ways`, () => {
    assert.equal(Buffer.from(encodeRequest(request)).toString('hex'), hex.replaceAll(' ', ''));
    assert.deepEqual(decodeRequest(Buffer.from(hex.replaceAll(' ', ''), 'hex')), request);
  });
}

test('hello and a successful ack are the bytes of the reference', () => {
  assert.equal(Buffer.from(encodeHello()).toString('hex'), '0801');
  assert.equal(decodeHello(encodeHello()), 1);
  assert.equal(Buffer.from(encodeAck()).toString('hex'), '0a00');
  assert.equal(decodeAck(encodeAck()), undefined);
});

const text = anyText({ maxLength: 60 });
const uid = anyText({ minLength: 1, maxLength: 60 });
const plain = { noNullPrototype: true };
const workload = fc.record({ name: text, namespace: text, serviceAccount: text }, plain);
const requests: fc.Arbitrary<ZdsRequest> = fc.oneof(
  fc.record({ kind: fc.constant('add' as const), uid, workload }, plain),
  fc.record({ kind: fc.constantFrom('add', 'keep', 'del'), uid }, plain),
  fc.constant({ kind: 'snapshot-sent' as const }),
);

test('every request is read as it was written', () => {
  fc.assert(fc.property(requests, (request) => assert.deepEqual(decodeRequest(encodeRequest(request)), request)));
});

test('an error of any length fits a packet: short ones whole, long ones their beginning', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme', minLength: 1, maxLength: 900 }), (error) => {
      const packet = encodeAck(error);
      const read = decodeAck(packet) ?? '';
      assert.ok(packet.length <= MAX_ZDS_BYTES);
      assert.ok(error.startsWith(read));
      if (Buffer.byteLength(error) <= 1_000) assert.equal(read, error);
      else assert.ok(Buffer.byteLength(read) > 990);
    }),
  );
});

test('a request that does not fit a packet is not written', () => {
  const request: ZdsRequest = { kind: 'keep', uid: 'u'.repeat(MAX_ZDS_BYTES) };
  assert.throws(
    () => encodeRequest(request),
    (error) => error instanceof MeshError && error.code === 'CV-WIRE-TOO-LARGE',
  );
});

const bad: readonly { readonly name: string; readonly hex: string }[] = [
  { name: 'nothing at all', hex: '' },
  { name: 'an Add cut in the middle', hex: '0a190a0375696412120a0577' },
  { name: 'a payload of a later version', hex: '3200' },
  { name: 'the retired field 4', hex: '220375696400' },
  { name: 'an Add without a uid', hex: '0a02' + '1200' },
  { name: 'a Del with its uid in field 1', hex: '12050a03756964' },
  { name: 'a Keep without a uid', hex: '2a00' },
  { name: 'a uid that is no UTF-8', hex: '2a050a03ff6964' },
  { name: 'a group that never ends', hex: '0b' },
  { name: 'a length beyond the packet', hex: '0affffffff0f' },
];

for (const { name, hex } of bad) {
  test(`${name} is refused as malformed`, () => {
    assert.throws(
      () => decodeRequest(Buffer.from(hex, 'hex')),
      (error) => error instanceof MeshError && error.code === 'CV-WIRE-MALFORMED',
    );
  });
}

test('any bytes at all give a message or a MeshError', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (packet) => {
      for (const decode of [decodeRequest, decodeAck, decodeHello]) {
        try {
          decode(packet);
        } catch (error) {
          assert.ok(error instanceof MeshError);
        }
      }
    }),
    { numRuns: 2_000 },
  );
});
