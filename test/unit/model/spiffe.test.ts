import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { expectedIdentities, formatSpiffeId, parseSpiffeId } from '../../../src/model/spiffe.ts';
import { anyText } from '../../support/any-text.ts';
import { workload } from './sample-mesh.ts';

test('the mesh shape parses', () => {
  assert.deepEqual(parseSpiffeId('spiffe://cluster.local/ns/shop/sa/cart'), {
    trustDomain: 'cluster.local',
    namespace: 'shop',
    serviceAccount: 'cart',
  });
});

for (const [what, uri] of [
  ['nothing', ''],
  ['another scheme', 'https://td/ns/a/sa/b'],
  ['a scheme in capitals', 'SPIFFE://td/ns/a/sa/b'],
  ['no path', 'spiffe://td'],
  ['a missing account', 'spiffe://td/ns/a/sa'],
  ['an empty account', 'spiffe://td/ns/a/sa/'],
  ['an empty namespace', 'spiffe://td/ns//sa/b'],
  ['an empty trust domain', 'spiffe:///ns/a/sa/b'],
  ['one part too many', 'spiffe://td/ns/a/sa/b/c'],
  ['a trailing slash', 'spiffe://td/ns/a/sa/b/'],
  ['other literals', 'spiffe://td/namespace/a/sa/b'],
  ['literals in capitals', 'spiffe://td/NS/a/SA/b'],
  ['a NUL', 'spiffe://td/ns/a/sa/b\0'],
  ['a NUL before a second identity', 'spiffe://td/ns/a/sa/b\0.example/ns/x/sa/y'],
  ['a line break', 'spiffe://td/ns/a/sa/b\n'],
  ['a space in front', ' spiffe://td/ns/a/sa/b'],
  ['percent-encoding', 'spiffe://td/ns/a/sa/%62'],
  ['an encoded slash', 'spiffe://td/ns/a%2Fsa%2Fb/sa/b'],
  ['a query', 'spiffe://td/ns/a/sa/b?x=1'],
  ['a fragment', 'spiffe://td/ns/a/sa/b#x'],
  ['a port', 'spiffe://td:80/ns/a/sa/b'],
  ['user information', 'spiffe://me@td/ns/a/sa/b'],
  ['a dot segment', 'spiffe://td/ns/../sa/b'],
  ['letters beyond ASCII', 'spiffe://td/ns/ä/sa/b'],
  ['a trust domain over 255 characters', `spiffe://${'a'.repeat(256)}/ns/a/sa/b`],
  ['over 2048 characters', `spiffe://td/ns/a/sa/${'b'.repeat(2_048)}`],
] as const) {
  test(`${what} is no identity`, () => assert.equal(parseSpiffeId(uri), undefined));
}

test('any text gives an identity that formats back to the same text, or nothing', () => {
  const pieces = fc.array(fc.constantFrom('spiffe://', 'td', '/', 'ns', 'sa', 'a', '.', '..', '%', '\0', ' '), {
    maxLength: 12,
  });
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string(),
        anyText(),
        pieces.map((list) => list.join('')),
      ),
      (text) => {
        const id = parseSpiffeId(text);
        assert(id === undefined || formatSpiffeId(id) === text);
      },
    ),
  );
});

test('a service vouches for further identities, and what does not parse is left out', () => {
  const own = 'spiffe://cluster.local/ns/default/sa/server';
  const vouched = 'spiffe://td/ns/a/sa/b';
  assert.deepEqual(expectedIdentities(workload('server'), [vouched, 'server.example.com', vouched, own]), [
    own,
    vouched,
  ]);
});
