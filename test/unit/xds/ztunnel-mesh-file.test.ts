/** One mesh file for two programs: what we show people loads in ztunnel, and what ztunnel loads means the same here. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { meshFile } from '../../../src/cli/demo/mesh-file.ts';
import type { MeshState } from '../../../src/model/mesh-index.ts';
import { parseMeshFile } from '../../../src/xds/local-file.ts';
import { meshFileErrors } from '../../support/mesh-file-schema.ts';
import { RICH_MESH } from '../../support/rich-mesh.ts';

/** In the shape of ztunnel's own example: loopback addresses, a workload outside the mesh, a service of another network. */
const ZTUNNEL_FILE = `
workloads:
- uid: cluster-a//v1/Pod/lab/echo
  name: echo
  namespace: lab
  serviceAccount: echo
  workloadIps: ["127.0.3.1"]
  protocol: HBONE
  node: laptop
  network: ""
  services:
    "lab/echo.example":
      7000: 7070
    "lab/far.example":
      7000: 7070
# Not in the mesh.
- uid: cluster-a//v1/Pod/lab/echo-plain
  name: echo-plain
  namespace: lab
  serviceAccount: echo
  workloadIps: ["127.0.3.2"]
  protocol: TCP
  node: laptop
  network: ""
  services:
    "lab/echo.example":
      7000: 7070
policies:
  - action: Allow
    dryRun: false
    rules:
    - - - notDestinationPorts:
          - 7999
      - - principals:
          - !Suffix /sa/caller
          - !Presence []
    name: not-7999
    namespace: lab
    scope: Namespace
services:
- name: echo
  namespace: lab
  hostname: echo.example
  vips:
    - /127.30.0.1
  ports:
    7000: 7070
  subjectAltNames:
   - spiffe://cluster.local/ns/lab/sa/echo
- name: far
  namespace: lab
  hostname: far.example
  vips:
    - remote/127.30.0.2
  ports:
    7000: 7070
`;

function readmeExample(): string {
  const block = /^# mesh\.yaml\n(.*?)^```/ms.exec(readFileSync('README.md', 'utf8'));
  return block?.[1] ?? assert.fail('README.md shows no mesh.yaml');
}

function demoFile(): string {
  const pod = (name: string) => ({ name, node: 'n1', ips: ['10.1.0.1'], ip: '10.1.0.1' });
  return meshFile({
    pods: [pod('shop'), pod('cart')] as unknown as Parameters<typeof meshFile>[0]['pods'],
    service: { server: 'cart', vips: ['10.96.0.1'] },
    policy: { name: 'only-shop', protects: 'cart', allows: 'shop' },
  });
}

function loaded(text: string): MeshState {
  const parsed = parseMeshFile(text);
  assert(parsed.kind === 'mesh', JSON.stringify(parsed));
  return parsed.state;
}

for (const [name, text] of [
  ['the example of README.md', readmeExample()],
  ['the file of the demo', demoFile()],
  ['the file with every field', RICH_MESH],
  ['a file like the example of ztunnel', ZTUNNEL_FILE],
] as const) {
  test(`${name} loads in ztunnel and here`, () => {
    assert.deepEqual(meshFileErrors(text), []);
    assert.ok(loaded(text).workloads.length > 0);
  });
}

test('a file like the example of ztunnel means here what it means there', () => {
  const { workloads, services, policies } = loaded(ZTUNNEL_FILE);
  assert.deepEqual(
    workloads.map(({ protocol, ips, services: of }) => [protocol, ips, [...of.keys()]]),
    [
      ['HBONE', ['127.0.3.1'], ['lab/echo.example', 'lab/far.example']],
      ['TCP', ['127.0.3.2'], ['lab/echo.example']],
    ],
  );
  assert.deepEqual(
    services.map(({ vips, ports }) => [vips, [...ports]]),
    [
      [[{ network: '', ip: '127.30.0.1' }], [[7_000, 7_070]]],
      [[{ network: 'remote', ip: '127.30.0.2' }], [[7_000, 7_070]]],
    ],
  );
  assert.deepEqual(policies[0]?.rules, [
    [
      [{ notDestinationPorts: [7_999] }],
      [{ principals: [{ kind: 'suffix', value: '/sa/caller' }, { kind: 'presence' }] }],
    ],
  ]);
});

test('a match means the same as tag and as mapping', () => {
  const spelt = (matches: string): string =>
    ZTUNNEL_FILE.replace('- !Suffix /sa/caller', matches).replace('          - !Presence []\n', '');
  const kinds = ['Exact', 'Prefix', 'Suffix'].map((kind) => [`- !${kind} "80"`, `- {${kind}: "80"}`] as const);
  for (const [tag, mapping] of [...kinds, ['- !Presence []', '- {Presence: []}'] as const]) {
    assert.deepEqual(loaded(spelt(tag)).policies, loaded(spelt(mapping)).policies, tag);
  }
});

for (const [name, from, to, where] of [
  ['a match as mapping', '!Suffix /sa/caller', '{Suffix: /sa/caller}', '/policies/0/rules/0/1/0/principals/0'],
  ['a port in quotes', '7000: 7070', '"7000": 7070', '/workloads/0/services/lab~1echo.example'],
  [
    'an address where a range belongs',
    'notDestinationPorts:\n          - 7999',
    'sourceIps: [10.0.0.1]',
    '/sourceIps/0',
  ],
  ['a policy without dryRun', '    dryRun: false\n', '', '/policies/0'],
  ['a field that nobody knows', 'node: laptop', 'nodeName: laptop', '/workloads/0'],
  ['a waypoint without port', 'node: laptop', 'waypoint: {destination: lab/echo.example}', '/workloads/0/waypoint'],
  ['half a locality', 'node: laptop', 'locality: {region: r}', '/workloads/0/locality'],
] as const) {
  test(`the grammar of ztunnel refuses ${name}`, () => {
    const errors = meshFileErrors(ZTUNNEL_FILE.replace(from, to));
    assert.ok(
      errors.some((error) => error.startsWith(where) || error.split(' ')[0]?.endsWith(where) === true),
      errors.join('\n'),
    );
  });
}
