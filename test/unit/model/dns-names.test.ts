import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { dnsAliases, hostnamesFor } from '../../../src/model/dns-names.ts';

const DOMAIN = 'cluster.local';

for (const [claim, asked, aliases] of [
  ['one label is a service of the own namespace', 'a', ['a', 'a.ns1.svc.cluster.local']],
  [
    'two labels are name and namespace, then a name with a dot in the own namespace',
    'a.b',
    ['a.b', 'a.b.svc.cluster.local', 'a.b.ns1.svc.cluster.local'],
  ],
  ['three labels are a name with a dot and a namespace', 'a.b.c', ['a.b.c', 'a.b.c.svc.cluster.local']],
  [
    'three labels that end in svc are name and namespace first',
    'a.b.svc',
    ['a.b.svc', 'a.b.svc.cluster.local', 'a.b.svc.svc.cluster.local'],
  ],
  ['four labels that end in svc lack the domain only', 'a.b.c.svc', ['a.b.c.svc', 'a.b.c.svc.cluster.local']],
  ['four other labels are a name of the world', 'a.b.c.d', ['a.b.c.d']],
  ['six labels are a name of the world', 'a.b.c.d.e.f', ['a.b.c.d.e.f']],
  ['a name of another cluster domain is not touched', 'a.b.svc.other.local', ['a.b.svc.other.local']],
] as const) {
  test(`${claim}: ${asked}`, () => {
    assert.deepEqual(
      dnsAliases(asked, 'ns1', DOMAIN).map(({ name }) => name),
      aliases,
    );
  });
}

test('search domains of the namespace, of services and of the cluster are taken off, in this order', () => {
  assert.deepEqual(dnsAliases('a.ns1.svc.cluster.local', 'ns1', DOMAIN), [
    { name: 'a.ns1.svc.cluster.local' },
    { name: 'a', strippedLabels: 1 },
    { name: 'a.ns1', strippedLabels: 2 },
    { name: 'a.ns1.ns1.svc.cluster.local', strippedLabels: 2 },
    { name: 'a.ns1.svc', strippedLabels: 3 },
    { name: 'a.ns1.svc.svc.cluster.local', strippedLabels: 3 },
  ]);
});

test('a search domain is no shorter form of itself', () => {
  const names = dnsAliases('ns1.svc.cluster.local', 'ns1', DOMAIN);
  assert.ok(names.every(({ name }) => name !== ''));
  assert.deepEqual(names[0], { name: 'ns1.svc.cluster.local' });
});

test('a domain that only ends in the letters of a search domain is not taken off', () => {
  assert.deepEqual(dnsAliases('a.mycluster.local', 'ns1', DOMAIN), [
    { name: 'a.mycluster.local' },
    { name: 'a.mycluster.local.svc.cluster.local' },
  ]);
});

test('wildcards follow the name from the most to the least specific; one label has none', () => {
  assert.deepEqual([...hostnamesFor('a.b.c')], ['a.b.c', '*.b.c', '*.c']);
  assert.deepEqual([...hostnamesFor('a')], ['a']);
});

test('no name has more candidates than can be looked up for one query', () => {
  const label = fc.stringMatching(/^[a-z]{1,3}$/);
  const suffix = fc.constantFrom('', '.ns1.svc.cluster.local', '.svc.cluster.local', '.cluster.local');
  fc.assert(
    fc.property(fc.array(label, { minLength: 1, maxLength: 100 }), suffix, (labels, end) => {
      const aliases = dnsAliases(`${labels.join('.')}${end}`, 'ns1', DOMAIN);
      assert.equal(new Set(aliases.map(({ name }) => name)).size, aliases.length);
      assert.ok(aliases.length <= 12);
    }),
  );
});
