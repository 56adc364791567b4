import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { hasFirstRecord } from '../../../src/wire/tls-hello.ts';
import { clientHello } from '../../support/client-hello.ts';

test('the greeting of a client is whole with its last octet and not before', async () => {
  const hello = await clientHello();
  for (let bytes = 0; bytes < hello.length; bytes++) assert.equal(hasFirstRecord(hello.subarray(0, bytes)), false);
  assert.equal(hasFirstRecord(hello), true);
  assert.equal(hasFirstRecord(Buffer.concat([hello, Buffer.from('more')])), true);
});

test('what cannot be a greeting is not waited for', () => {
  for (const head of ['G', 'GET / HTTP/1.1\r\n', '\x17\x03\x03', '\x16\x03\x01\xff\xff']) {
    assert.equal(hasFirstRecord(Buffer.from(head, 'latin1')), true, JSON.stringify(head));
  }
});

test('more octets never make a whole record half, and 16 KiB are always enough', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 64 }), fc.uint8Array({ maxLength: 64 }), (head, more) => {
      const isWhole = hasFirstRecord(head);
      if (isWhole) assert.equal(hasFirstRecord(Buffer.concat([head, more])), true);
      assert.equal(hasFirstRecord(Buffer.concat([head, Buffer.alloc(2 ** 14 + 5)])), true);
    }),
  );
});
