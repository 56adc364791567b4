import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Baggage, formatBaggage, parseBaggage } from '../../../src/wire/baggage.ts';
import { anyText } from '../../support/any-text.ts';

const FULL: Baggage = {
  cluster: 'c1',
  namespace: 'shop',
  workloadType: 'deployment',
  workloadName: 'web',
  serviceName: 'web-app',
  serviceVersion: 'v1',
  region: 'r1',
  zone: 'z1',
};
const EMPTY: Baggage = {
  cluster: '',
  namespace: '',
  workloadType: 'deployment',
  workloadName: '',
  serviceName: '',
  serviceVersion: '',
  region: '',
  zone: '',
};
const FULL_TEXT =
  'k8s.cluster.name=c1,k8s.namespace.name=shop,k8s.deployment.name=web,service.name=web-app,service.version=v1,' +
  'cloud.region=r1,cloud.availability_zone=z1';

test('all fields are written in the order ztunnel writes them', () => assert.equal(formatBaggage(FULL), FULL_TEXT));

test('empty fields are left out, down to an empty header', () => {
  assert.equal(formatBaggage({ ...EMPTY, namespace: 'a', serviceName: 'b' }), 'k8s.namespace.name=a,service.name=b');
  assert.equal(formatBaggage(EMPTY), '');
});

for (const type of ['deployment', 'cronjob', 'pod', 'job'] as const) {
  test(`a ${type} is written and read as one`, () => {
    const text = formatBaggage({ ...EMPTY, workloadType: type, workloadName: 'x' });
    assert.equal(text, `k8s.${type}.name=x`);
    assert.deepEqual(parseBaggage([text]), { ...EMPTY, workloadType: type, workloadName: 'x' });
  });
}

test('a value that would need escaping is left out rather than changing the header', () => {
  for (const value of ['a,b', 'a b', 'a\r\nx: y', 'ä', '\0']) {
    assert.equal(formatBaggage({ ...EMPTY, namespace: value, serviceName: 'b' }), 'service.name=b');
  }
});

for (const [claim, lines, want] of [
  [
    'several header lines are read as one',
    ['service.name=a', 'service.version=v2'],
    { serviceName: 'a', serviceVersion: 'v2' },
  ],
  ['the last value of a key wins', ['service.name=a,service.name=b'], { serviceName: 'b' }],
  ['an empty value counts as not said', ['service.name=,service.version=v'], { serviceVersion: 'v' }],
  [
    'an empty value takes back an earlier one',
    ['service.name=a,service.name=,service.version=v'],
    { serviceVersion: 'v' },
  ],
  ['unknown keys are ignored', ['x=1,service.name=a,__proto__=b,constructor=c'], { serviceName: 'a' }],
  ['what follows a second = is dropped', ['service.name=a=b'], { serviceName: 'a' }],
  ['a key without = is ignored', ['service.name,service.version=v'], { serviceVersion: 'v' }],
  ['nothing is trimmed', ['service.name=a, service.version=v'], { serviceName: 'a' }],
  [
    'a value too long to be a name is dropped',
    [`service.name=${'a'.repeat(254)},service.version=v`],
    { serviceVersion: 'v' },
  ],
  [
    'members after 180 are not looked at',
    [`service.version=v${','.repeat(180)}service.name=a`],
    { serviceVersion: 'v' },
  ],
] as const) {
  test(claim, () => assert.deepEqual(parseBaggage(lines), { ...EMPTY, ...want }));
}

for (const [claim, lines] of [
  ['no header', []],
  ['an empty header', ['']],
  ['only unknown keys', ['a=b,c=d']],
  ['only empty values', ['service.name=,cloud.region=']],
  ['letters beyond ASCII', ['service.name=a', 'service.version=ä']],
  ['a header over 8 KiB', [`service.name=a,${'x'.repeat(9_000)}`]],
] as const) {
  test(`${claim} says nothing`, () => assert.equal(parseBaggage(lines), undefined));
}

test('what is written reads back as it was', () => {
  const name = fc.stringMatching(/^[a-z0-9][a-z0-9.-]{0,40}$/);
  const baggage = fc.record(
    {
      cluster: name,
      namespace: name,
      workloadType: fc.constantFrom('deployment', 'cronjob', 'pod', 'job'),
      workloadName: name,
      serviceName: name,
      serviceVersion: name,
      region: name,
      zone: name,
    },
    { noNullPrototype: true },
  );
  fc.assert(fc.property(baggage, (value) => assert.deepEqual(parseBaggage([formatBaggage(value)]), value)));
});

test('any header lines give baggage with bounded printable values, or nothing', () => {
  const line = fc.oneof(
    anyText(),
    fc
      .array(fc.constantFrom('service.name', 'k8s.pod.name', '=', ',', 'a', ' '), { maxLength: 12 })
      .map((l) => l.join('')),
  );
  fc.assert(
    fc.property(fc.array(line, { maxLength: 4 }), (lines) => {
      for (const value of Object.values(parseBaggage(lines) ?? {})) assert.match(value, /^[\x20-\x7e]{0,253}$/);
    }),
  );
});

test('whatever the mesh says, the header that is written is legal', () => {
  fc.assert(
    fc.property(anyText(), (text) => {
      assert.match(formatBaggage({ ...FULL, namespace: text, zone: text }), /^[\x21-\x7e]*$/);
    }),
  );
});
