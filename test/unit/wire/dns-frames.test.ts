import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { DnsFrames, dnsFrame } from '../../../src/wire/dns-frames.ts';

test('messages come out as they went in, however the bytes are cut', () => {
  const messages = fc.array(fc.uint8Array({ maxLength: 80 }), { maxLength: 6 });
  fc.assert(
    fc.property(messages, fc.array(fc.integer({ min: 1, max: 50 }), { minLength: 1 }), (sent, cuts) => {
      const stream = Buffer.concat(sent.map(dnsFrame));
      const frames = new DnsFrames();
      const received: Uint8Array[] = [];
      for (let at = 0, i = 0; at < stream.length; i++) {
        const length = cuts[i % cuts.length] ?? 1;
        received.push(...frames.push(stream.subarray(at, at + length)));
        at += length;
      }
      assert.deepEqual(
        received.map((message) => [...message]),
        sent.map((message) => [...message]),
      );
    }),
  );
});

test('a message of 64 KiB passes, and is a copy of its own', () => {
  const sent = new Uint8Array(65_535).fill(7);
  const stream = dnsFrame(sent);
  const [received] = new DnsFrames().push(stream);
  stream.fill(0);
  assert.deepEqual(received, sent);
});
