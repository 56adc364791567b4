import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { decodeAttributes, decodeMessages, encodeAttributes, encodeMessage } from '../../../src/sys/netlink.ts';

const u32 = fc.integer({ min: 0, max: 0xffff_ffff });
const u16 = fc.integer({ min: 0, max: 0xffff });

test('messages survive a round trip, several in one datagram', () => {
  const payload = fc.uint8Array({ maxLength: 40 }).filter(({ length }) => length % 4 === 0);
  const message = fc.record({ type: u16, payload }, { noNullPrototype: true });
  fc.assert(
    fc.property(fc.array(message, { maxLength: 5 }), (messages) => {
      const datagram = Buffer.concat(messages.map((one) => encodeMessage(one.type, 1, one.payload)));
      const decoded = [...decodeMessages(datagram)].map((one) => ({ ...one, payload: Uint8Array.from(one.payload) }));
      assert.deepEqual(decoded, messages);
    }),
  );
});

test('attributes survive a round trip', () => {
  fc.assert(
    fc.property(fc.dictionary(fc.constantFrom('1', '6', '10', '15', '65535'), u32), (values) => {
      const list = Object.entries(values).map(([type, value]) => [Number(type), value] as const);
      assert.deepEqual(decodeAttributes(encodeAttributes(list)), new Map(list));
    }),
  );
});

test('any bytes at all end the decoders', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      for (const { payload } of decodeMessages(bytes)) assert(payload.length <= bytes.length);
      assert(decodeAttributes(bytes).size <= bytes.length);
    }),
  );
});
