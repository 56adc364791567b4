import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { formatForwarded, parseForwardedHost } from '../../../src/wire/forwarded.ts';
import { anyText } from '../../support/any-text.ts';

test('an IPv4 client is quoted with its port', () => {
  assert.equal(formatForwarded({ ip: '10.0.0.1', port: 80 }), 'for="10.0.0.1:80"');
});

test('an IPv6 client is bracketed inside the quotes', () => {
  assert.equal(formatForwarded({ ip: '::1', port: 80 }), 'for="[::1]:80"');
});

test('a known service is appended without quotes', () => {
  assert.equal(formatForwarded({ ip: '::1', port: 80 }, 'a.b.local'), 'for="[::1]:80";host=a.b.local');
});

test('a service name that would break the header is left out', () => {
  for (const name of ['a b', 'a;host=b', 'a\r\nx', 'ä', '']) {
    assert.equal(formatForwarded({ ip: '1.1.1.1', port: 1 }, name), 'for="1.1.1.1:1"');
  }
});

for (const [value, want] of [
  ['for="10.0.0.1:80";host=web.local', 'web.local'],
  ['for="10.0.0.1:80";host="web.local"', 'web.local'],
  ['host=web.local;for="10.0.0.1:80"', 'web.local'],
  ['host="web.local:80"', 'web.local:80'],
  ['host="[::1]:80"', '[::1]:80'],
  ['host=first;host=second', 'first'],
  ['for="10.0.0.1:80"', undefined],
  ['host=', undefined],
  ['host=""', undefined],
  ['host="""web.local""', 'web.local'],
  ['host=web""local', 'web""local'],
  ['', undefined],
  ['host=wéb', undefined],
  ['host=web\0', undefined],
  [`host=${'a'.repeat(2_000)}`, undefined],
] as const) {
  test(`the host of ${JSON.stringify(value).slice(0, 50)} is ${want ?? 'not there'}`, () => {
    assert.equal(parseForwardedHost(value), want);
  });
}

test('what is written reads back', () => {
  const client = fc.record({ ip: fc.ipV4(), port: fc.nat(65_535) });
  fc.assert(
    fc.property(client, fc.domain(), (from, host) =>
      assert.equal(parseForwardedHost(formatForwarded(from, host)), host),
    ),
  );
});

test('any text gives printable text or nothing', () => {
  const text = fc.oneof(
    anyText(),
    fc.string().map((tail) => `host=${tail}`),
  );
  fc.assert(fc.property(text, (value) => assert.match(parseForwardedHost(value) ?? 'x', /^[\x20-\x7e]+$/)));
});
