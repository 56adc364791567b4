import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { formatHboneAuthority, isHostname, parseHboneAuthority } from '../../../src/wire/hbone.ts';
import { anyText } from '../../support/any-text.ts';

for (const [text, want] of [
  ['10.0.0.1:80', { kind: 'address', ip: '10.0.0.1', port: 80 }],
  ['[::1]:65535', { kind: 'address', ip: '::1', port: 65_535 }],
  ['[FD00:0::1]:1', { kind: 'address', ip: 'fd00::1', port: 1 }],
  ['[::ffff:10.0.0.1]:80', { kind: 'address', ip: '10.0.0.1', port: 80 }],
  ['web.shop.svc.cluster.local:80', { kind: 'hostname', hostname: 'web.shop.svc.cluster.local', port: 80 }],
  ['localhost:1', { kind: 'hostname', hostname: 'localhost', port: 1 }],
  ['*.example.com:443', { kind: 'hostname', hostname: '*.example.com', port: 443 }],
] as const) {
  test(`${text} is an authority`, () => assert.deepEqual(parseHboneAuthority(text), want));
}

for (const text of [
  '',
  ':80',
  '10.0.0.1',
  '10.0.0.1:',
  '10.0.0.1:0',
  '10.0.0.1:080',
  '10.0.0.1:65536',
  '10.0.0.1:-1',
  '10.0.0.1:8e1',
  '10.0.0.1: 80',
  '10.0.0.1:80 ',
  '10.0.0.1:80:80',
  '010.0.0.1:80',
  '10.0.0.256:80',
  '10.0.0:80',
  '1.2.3.4.5:80',
  '::1:80',
  '[::1]',
  '[::1]80',
  '[10.0.0.1]:80',
  '[::1%eth0]:80',
  'web',
  'web:http',
  'web:',
  'web_:99999',
  '-web:80',
  'web-:80',
  'we b:80',
  'web..shop:80',
  '.web:80',
  'web.:80',
  'user@web:80',
  'http://web:80',
  'web:80/path',
  'web\0:80',
  'web\n:80',
  'wéb:80',
  `${'a'.repeat(64)}.example:80`,
  `${'a.'.repeat(127)}aa:80`,
]) {
  test(`${JSON.stringify(text).slice(0, 40)} is no authority`, () =>
    assert.equal(parseHboneAuthority(text), undefined));
}

test('what is parsed formats to a text that parses to the same', () => {
  const port = fc.integer({ min: 1, max: 65_535 });
  const host = fc.oneof(
    fc.ipV4(),
    fc.ipV6().map((ip) => `[${ip}]`),
    fc.domain(),
  );
  fc.assert(
    fc.property(host, port, (name, number) => {
      const parsed = parseHboneAuthority(`${name}:${number}`);
      assert(parsed !== undefined, `${name}:${number}`);
      assert.deepEqual(parseHboneAuthority(formatHboneAuthority(parsed)), parsed);
    }),
  );
});

test('any text gives an authority or nothing', () => {
  const pieces = fc.array(fc.constantFrom('[', ']', ':', '::', '.', '1', '80', 'a', '-', '\0', '%'), { maxLength: 20 });
  fc.assert(
    fc.property(
      fc.oneof(
        anyText(),
        pieces.map((list) => list.join('')),
      ),
      (text) => {
        const parsed = parseHboneAuthority(text);
        assert(parsed === undefined || (parsed.port >= 1 && parsed.port <= 65_535));
      },
    ),
  );
});

test('a very long text is refused at once', () => {
  assert.equal(parseHboneAuthority(`${'a-'.repeat(500_000)}:80`), undefined);
  assert.equal(isHostname('a'.repeat(254)), false);
});
