import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { MeshError } from '../../../src/base/errors.ts';
import { parsePodList, requireDistinct } from '../../../src/capture/pod-list.ts';
import { anyText } from '../../support/any-text.ts';

const GOOD = `pods:
  - uid: u1
    name: shop-0
    namespace: default
    serviceAccount: shop
    netns: /var/run/netns/shop-0
    ingressMode: true
    rerouteInterfaces: [tap0]
`;

const shop = {
  uid: 'u1',
  name: 'shop-0',
  namespace: 'default',
  serviceAccount: 'shop',
  netnsPath: '/var/run/netns/shop-0',
  options: { isIngressMode: true, rerouteInterfaces: ['tap0'] },
};

function refusal(text: string): string {
  try {
    parsePodList(text, 'pods.yaml');
  } catch (error) {
    assert(error instanceof MeshError && error.code === 'CV-ENROL-SOURCE');
    return error.message;
  }
  return 'taken';
}

test('YAML and JSON give the same pods, and the options may be left out', () => {
  assert.deepEqual(parsePodList(GOOD, 'f'), [shop]);
  const json = { ...shop, netns: shop.netnsPath, ...shop.options } as Record<string, unknown>;
  for (const key of ['netnsPath', 'options', 'isIngressMode']) delete json[key];
  delete json['rerouteInterfaces'];
  assert.deepEqual(parsePodList(JSON.stringify({ pods: [json] }), 'f'), [
    { ...shop, options: { isIngressMode: false, rerouteInterfaces: [] } },
  ]);
  assert.deepEqual(parsePodList('pods: []', 'f'), []);
});

const bad: readonly (readonly [string, string, string])[] = [
  ['an empty file', '', 'pods.yaml:1:1: the file is empty'],
  ['no list', 'pods:\n', 'mandatory field "pods" is missing'],
  ['a list of something else', 'pods: [x]', 'pods.yaml:1:8: expected a mapping'],
  ['an unknown field', GOOD.replace('ingressMode', 'ingresMode'), 'pods.yaml:7:5: unknown field "ingresMode"'],
  ['an unknown top field', `${GOOD}other: 1\n`, 'pods.yaml:9:1: unknown field "other"'],
  ['a missing field', GOOD.replace('    name: shop-0\n', ''), 'pods.yaml:2:5: mandatory field "name" is missing'],
  ['a number for a name', GOOD.replace('name: shop-0', 'name: 7'), 'pods.yaml:3:11: expected text, found 7'],
  ['a namespace with a slash', GOOD.replace('default', 'a/sa/b'), 'pods.yaml:4:16: "a/sa/b" is not a Kubernetes'],
  [
    'a relative netns',
    GOOD.replace('/var/run', 'var/run'),
    'pods.yaml:6:12: "var/run/netns/shop-0" is not an absolute',
  ],
  ['a yes that is no boolean', GOOD.replace('true', 'yes'), 'pods.yaml:7:18: expected true or false'],
  ['a hostile interface', GOOD.replace('[tap0]', "['a\"; drop']"), 'pods.yaml:8:25: "a\\"; drop" is not the name'],
  ['broken YAML', `${GOOD}   - x: [`, 'pods.yaml:9:'],
  ['a field twice', GOOD.replace('name: shop-0', 'uid: u2'), 'pods.yaml:3:5: Map keys must be unique'],
  [
    'a uid twice',
    `${GOOD}${GOOD.replace('pods:\n', '').replace('/shop-0', '/x')}`,
    'pods.yaml:9:10: uid "u1" is that of',
  ],
  [
    'a netns twice',
    `${GOOD}${GOOD.replace('pods:\n', '').replace('u1', 'u2')}`,
    'pods.yaml:13:12: netns "/var/run/netns/',
  ],
  ['a mistake more', GOOD.replace('true', 'yes').replace('[tap0]', '7'), '(and 1 more)'],
  ['nesting without end', `pods: ${'['.repeat(100_000)}`, 'pods.yaml:1:'],
];

for (const [what, text, message] of bad) {
  test(`${what} is refused with its place`, () => {
    assert(refusal(text).includes(message), refusal(text));
  });
}

test('two pods with one uid or one namespace are refused, each by name', () => {
  const one = { ...shop, file: 'a.yaml' };
  const two = { ...shop, name: 'other', file: 'b.yaml' };
  assert.throws(() => requireDistinct([one, two]), /b\.yaml: default\/other has the uid of default\/shop-0 in a\.yaml/);
  assert.throws(() => requireDistinct([one, { ...two, uid: 'u2' }]), /has the netns of default\/shop-0/);
  requireDistinct([one, { ...two, uid: 'u2', netnsPath: '/x' }]);
});

test('any text at all gives pods or a refusal with file, line and column', () => {
  fc.assert(
    fc.property(anyText({ maxLength: 200 }), (text) => {
      const message = refusal(text);
      assert(message === 'taken' || /^pods\.yaml:\d+:\d+: /.test(message), message);
    }),
  );
  fc.assert(
    fc.property(fc.json(), (text) => {
      const message = refusal(`{"pods": ${text}}`);
      assert(message === 'taken' || /^pods\.yaml:\d+:\d+: /.test(message), message);
    }),
  );
});
