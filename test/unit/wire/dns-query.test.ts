import assert from 'node:assert/strict';
import { test } from 'node:test';
import { encode, type RecordType } from 'dns-packet';
import fc from 'fast-check';
import { MeshError } from '../../../src/base/errors.ts';
import { readEdns, readHeader, readQuestion } from '../../../src/wire/dns-query.ts';

/** Header of a query with `counts`, then `rest`. */
function message(counts: readonly number[], ...rest: readonly (string | readonly number[])[]): Uint8Array {
  const header = [0x12, 0x34, 0x01, 0x00, ...counts.flatMap((count) => [count >> 8, count & 0xff])];
  return Uint8Array.from([...header, ...rest.flatMap((part) => [...Buffer.from(part as string)])]);
}

const ONE = [1, 0, 0, 0];
const A_IN = [0, 1, 0, 1];

const label = fc.stringMatching(/^[A-Za-z0-9_-]{1,20}$/);
const name = fc.array(label, { minLength: 1, maxLength: 8 }).map((labels) => labels.join('.'));

test('a name reads back as it was spelt, with its type and class', () => {
  fc.assert(
    fc.property(name, fc.constantFrom<RecordType>('A', 'AAAA', 'TXT', 'SRV'), (asked, type) => {
      const packet = encode({ type: 'query', id: 7, questions: [{ name: asked, type }] });
      const question = readQuestion(packet);
      assert.equal(question.name, asked);
      assert.deepEqual(question.bytes, packet.subarray(12));
      assert.equal(question.class, 1);
    }),
  );
});

test('any bytes at all are a question or a MeshError', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 12, maxLength: 300 }), fc.boolean(), (bytes, hasOneQuestion) => {
      if (hasOneQuestion) bytes.set([0, 1], 4);
      for (const read of [readQuestion, readEdns]) {
        try {
          read(bytes);
        } catch (error) {
          assert.ok(error instanceof MeshError);
          assert.equal(error.code, 'CV-WIRE-MALFORMED');
        }
      }
    }),
    { numRuns: 2_000 },
  );
});

test('a good query with any one byte changed is a question or a MeshError', () => {
  const good = encode({
    type: 'query',
    questions: [{ name: 'web.shop.svc.cluster.local', type: 'A' }],
    additionals: [
      {
        type: 'OPT',
        name: '.',
        udpPayloadSize: 1232,
        extendedRcode: 0,
        ednsVersion: 0,
        flags: 0,
        flag_do: false,
        options: [],
      },
    ],
  });
  fc.assert(
    fc.property(fc.nat(good.length - 1), fc.nat(255), (at, byte) => {
      const bad = Uint8Array.from(good);
      bad[at] = byte;
      for (const read of [readQuestion, readEdns]) {
        try {
          read(bad);
        } catch (error) {
          assert.ok(error instanceof MeshError);
        }
      }
    }),
    { numRuns: 2_000 },
  );
});

for (const [claim, bytes] of [
  ['a name that points at itself', message(ONE, [0xc0, 12], A_IN)],
  ['a name whose pointers go round', message(ONE, [1, 97, 0xc0, 12], A_IN)],
  ['a pointer forward', message(ONE, [0xc0, 14, 0, 0], A_IN)],
  ['a pointer behind the end', message(ONE, [0xff, 0xff], A_IN)],
  ['a name without an end', message(ONE, [3, 97, 98, 99])],
  ['a label longer than the message', message(ONE, [63, 97])],
  ['a label of a reserved kind', message(ONE, [0x40, 97, 0], A_IN)],
  [
    'a name over 255 octets',
    message(ONE, ...Array.from({ length: 5 }, () => [60, ...Array.from({ length: 60 }, () => 97)]), [0], A_IN),
  ],
  ['a question without type and class', message(ONE, [1, 97, 0], [0, 1])],
  ['no question', message([0, 0, 0, 0])],
  ['two questions', message([2, 0, 0, 0], [1, 97, 0], A_IN, [1, 98, 0], A_IN)],
  ['65,535 questions', message([65_535, 0, 0, 0], [1, 97, 0], A_IN)],
] as const) {
  test(`${claim} is malformed`, () => assert.throws(() => readQuestion(bytes), { code: 'CV-WIRE-MALFORMED' }));
}

for (const [claim, octets] of [
  ['a label with a dot in it', [5, ...Buffer.from('a.web'), 0]],
  ['a label of the octets of another alphabet', [2, 0xc3, 0xa9, 0]],
  ['a label of octets that are no text', [2, 0xff, 0xfe, 0]],
  ['a label with a space', [3, 97, 32, 98, 0]],
  ['a pointer into the header', [1, 97, 0xc0, 8]],
] as const) {
  test(`${claim} has no text, and is still a question`, () => {
    const question = readQuestion(message(ONE, octets, A_IN));
    assert.equal(question.name, undefined);
    assert.deepEqual([...question.bytes], [...octets, ...A_IN]);
  });
}

test('the root has the empty name', () => {
  assert.equal(readQuestion(message(ONE, [0], A_IN)).name, '');
});

test('what stands behind the question does not disturb it', () => {
  const bytes = message([1, 9, 9, 9], [1, 97, 0], A_IN, [0xff, 0xff, 0xff]);
  assert.equal(readQuestion(bytes).name, 'a');
  assert.throws(() => readEdns(bytes), { code: 'CV-WIRE-MALFORMED' });
});

test('payload size, version and DO of EDNS are read', () => {
  const opt = [0, 0, 41, 0x04, 0xd0, 0, 1, 0x80, 0, 0, 0];
  const bytes = message([1, 0, 0, 1], [1, 97, 0], A_IN, opt);
  assert.deepEqual(readEdns(bytes), { payloadBytes: 1_232, version: 1, isDnssecOk: true });
  assert.equal(readEdns(message(ONE, [1, 97, 0], A_IN)), undefined);
});

for (const [claim, records] of [
  [
    'two OPT records',
    [
      [0, 0, 41, 2, 0, 0, 0, 0, 0, 0, 0],
      [0, 0, 41, 2, 0, 0, 0, 0, 0, 0, 0],
    ],
  ],
  ['an OPT record that ends early', [[0, 0, 41, 2]]],
] as const) {
  test(`${claim} is malformed EDNS`, () => {
    const bytes = message([1, 0, 0, records.length], [1, 97, 0], A_IN, ...records);
    assert.throws(() => readEdns(bytes), { code: 'CV-WIRE-MALFORMED' });
  });
}

test('less than a header is no DNS message', () => {
  assert.equal(readHeader(new Uint8Array(11)), undefined);
  assert.equal(readHeader(message(ONE, [0], A_IN))?.id, 0x1234);
});
