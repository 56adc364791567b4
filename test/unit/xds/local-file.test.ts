import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { MeshState } from '../../../src/model/mesh-index.ts';
import { issueText, type MeshFileResult, parseMeshFile } from '../../../src/xds/local-file.ts';

const EXAMPLE = `
services:
- {name: greeter, namespace: demo, hostname: greeter.demo.svc.cluster.local, vips: ["/127.30.0.1"], ports: {8000: 9000}, canonical: true}
workloads:
- uid: lab//Pod/demo/greeter-1
  name: greeter-1
  namespace: demo
  serviceAccount: greeter
  workloadIps: ["127.30.0.11"]
  protocol: HBONE
  node: laptop
  services: {"demo/greeter.demo.svc.cluster.local": {8000: 9000}}
- uid: lab//Pod/demo/caller
  name: caller
  namespace: demo
  serviceAccount: caller
  workloadIps: ["127.30.0.12"]
  node: laptop
  services: {}
policies:
- name: only-caller
  namespace: demo
  scope: Namespace
  action: Allow
  dryRun: false
  rules: [[[{principals: [{Exact: "cluster.local/ns/demo/sa/caller"}]}]]]
`;

function accepted(text: string): MeshState {
  const result = parseMeshFile(text);
  assert.equal(result.kind, 'mesh', shown(result).join('\n'));
  assert(result.kind === 'mesh');
  return result.state;
}

function shown(result: MeshFileResult): string[] {
  const issues = result.kind === 'mesh' ? result.warnings : result.issues;
  return issues.map((issue) => issueText('mesh.yaml', issue));
}

test('the example of the format loads, defaults filled in', () => {
  const { workloads, services, policies, rejectedPolicies } = accepted(EXAMPLE);
  assert.deepEqual(workloads[1], {
    uid: 'lab//Pod/demo/caller',
    name: 'caller',
    namespace: 'demo',
    trustDomain: 'cluster.local',
    serviceAccount: 'caller',
    network: '',
    ips: ['127.30.0.12'],
    hostname: '',
    node: 'laptop',
    clusterId: 'Kubernetes',
    protocol: 'TCP',
    networkMode: 'Standard',
    nativeTunnel: false,
    workloadName: '',
    workloadType: 'deployment',
    canonicalName: '',
    canonicalRevision: '',
    locality: { region: '', zone: '', subzone: '' },
    status: 'Healthy',
    capacity: 1,
    authorizationPolicies: [],
    services: new Map(),
  });
  assert.deepEqual(
    workloads[0]?.services,
    new Map([['demo/greeter.demo.svc.cluster.local', new Map([[8_000, 9_000]])]]),
  );
  assert.deepEqual(services, [
    {
      name: 'greeter',
      namespace: 'demo',
      hostname: 'greeter.demo.svc.cluster.local',
      vips: [{ network: '', ip: '127.30.0.1' }],
      cidrVips: [],
      ports: new Map([[8_000, 9_000]]),
      subjectAltNames: [],
      weightedWaypoints: [],
      loadBalancer: { mode: 'Standard', routingPreferences: [], healthPolicy: 'OnlyHealthy' },
      canonical: true,
      visibility: 'Public',
    },
  ]);
  assert.deepEqual(policies, [
    {
      name: 'only-caller',
      namespace: 'demo',
      scope: 'Namespace',
      action: 'Allow',
      dryRun: false,
      rules: [[[{ principals: [{ kind: 'exact', value: 'cluster.local/ns/demo/sa/caller' }] }]]],
    },
  ]);
  assert.deepEqual(rejectedPolicies, []);
});

test('every optional field of a workload and a service is understood', () => {
  const { workloads, services } = accepted(`
workloads:
- uid: c//Pod/ns/full
  name: full
  namespace: ns
  trustDomain: td
  serviceAccount: sa
  network: n1
  workloadIps: [10.0.0.1, "FD00:0::1"]
  hostname: full.example.com
  node: node-1
  clusterId: c
  protocol: HBONE
  networkMode: HostNetwork
  nativeTunnel: true
  workloadName: w
  workloadType: job
  canonicalName: cn
  canonicalRevision: cr
  locality: {region: r, zone: z, subzone: s}
  status: Unhealthy
  capacity: 0
  waypoint: {destination: "ns/web.ns.svc", hboneMtlsPort: 15009}
  networkGateway: {destination: "n1/10.1.0.1"}
  applicationTunnel: {protocol: PROXY, port: 15088}
  authorizationPolicies: []
  services: {}
services:
- name: web
  namespace: ns
  hostname: web.ns.svc
  vips: [n1/10.1.0.1, "/fd00::2"]
  cidrVips: [{network: n1, cidr: 10.2.3.4/16}, "/fd00::/8"]
  ports: {"80": 0, 443: 8443}
  subjectAltNames: ["spiffe://td/ns/a/sa/b"]
  waypoint: {destination: "n1/10.1.0.1", hboneMtlsPort: 15008}
  weightedWaypoints: [{destination: {destination: ns/web.ns.svc}, weight: 3}]
  loadBalancer: {mode: Failover, routingPreferences: [Network, Region], healthPolicy: AllowAll}
  ipFamilies: Dual
  canonical: true
  visibility: Namespace
`);
  const [full] = workloads;
  assert.deepEqual(full?.ips, ['10.0.0.1', 'fd00::1']);
  assert.deepEqual(full?.waypoint, { kind: 'hostname', namespace: 'ns', hostname: 'web.ns.svc', hbonePort: 15_009 });
  assert.deepEqual(full?.networkGateway, { kind: 'address', network: 'n1', ip: '10.1.0.1', hbonePort: 15_008 });
  assert.deepEqual(full?.applicationTunnel, { protocol: 'PROXY', port: 15_088 });
  assert.equal(full?.capacity, 0);
  assert.equal(full?.workloadType, 'job');
  const [web] = services;
  assert.deepEqual(web?.vips, [
    { network: 'n1', ip: '10.1.0.1' },
    { network: '', ip: 'fd00::2' },
  ]);
  assert.deepEqual(web?.cidrVips, [
    { network: 'n1', cidr: '10.2.0.0/16' },
    { network: '', cidr: 'fd00::/8' },
  ]);
  assert.deepEqual(
    web?.ports,
    new Map([
      [80, 0],
      [443, 8_443],
    ]),
  );
  assert.deepEqual(web?.loadBalancer, {
    mode: 'Failover',
    routingPreferences: ['Network', 'Region'],
    healthPolicy: 'AllowAll',
  });
  assert.equal(web?.visibility, 'Namespace');
});

test('every field of a policy match is understood', () => {
  const { policies } = accepted(`
policies:
- name: all
  namespace: ns
  scope: Global
  action: Deny
  dryRun: true
  rules:
  - - - namespaces: [{Exact: a}]
        notNamespaces: [{Prefix: b}]
        serviceAccounts: [{namespace: n, serviceAccount: s}]
        notServiceAccounts: [{namespace: n, serviceAccount: t}]
        principals: [{Suffix: c}]
        notPrincipals: [{Presence: []}]
        sourceIps: [10.0.0.0/8, 192.0.2.1]
        notSourceIps: ["fd00::/8"]
        destinationIps: [10.0.0.2/32]
        notDestinationIps: [10.0.0.3/32]
        destinationPorts: [80]
        notDestinationPorts: [443]
`);
  const [match] = policies[0]?.rules[0]?.[0] ?? [];
  assert.equal(Object.keys(match ?? {}).length, 12);
  assert.deepEqual(match?.notPrincipals, [{ kind: 'presence' }]);
  assert.deepEqual(
    match?.sourceIps?.map(({ length }) => length),
    [8, 32],
  );
});

test('the same mesh as JSON loads to the same state', () => {
  const yaml = `{"workloads": [{"uid": "a", "namespace": "ns", "workloadIps": ["10.0.0.1"], "services": {"ns/web": {"80": 81}}}], "services": [], "policies": []}`;
  const [workload] = accepted(yaml).workloads;
  assert.deepEqual(workload?.services, new Map([['ns/web', new Map([[80, 81]])]]));
});

test('an explicitly empty mesh loads; an empty file does not', () => {
  assert.deepEqual(accepted('{}'), { workloads: [], services: [], policies: [], rejectedPolicies: [] });
  assert.equal(accepted('workloads: []').workloads.length, 0);
  for (const text of ['', '\n', '# only a comment\n', 'null']) assert.equal(parseMeshFile(text).kind, 'refused', text);
});

test('endpoints written inside a service make their workloads members of it', () => {
  const { workloads } = accepted(`
workloads:
- {uid: a, namespace: ns, workloadIps: [10.0.0.1], services: {}}
services:
- name: web
  namespace: ns
  hostname: web.ns
  vips: []
  ports: {80: 8080}
  endpoints: {a: {workloadUid: a, port: {80: 9090}, status: Healthy}}
`);
  assert.deepEqual(workloads[0]?.services, new Map([['ns/web.ns', new Map([[80, 9_090]])]]));
});

test('an alias stands for what its anchor says', () => {
  const { workloads } = accepted(`
workloads:
- {uid: a, namespace: ns, workloadIps: &ips [10.0.0.1], services: {}}
- {uid: b, namespace: ns, workloadIps: *ips, services: {}}
`);
  assert.deepEqual(workloads[1]?.ips, ['10.0.0.1']);
});

// One mistake in an otherwise good file: ¦ stands where it must be reported, and is taken out before the file is read.

const W = (fields: string): string =>
  `workloads:\n- {uid: a, namespace: ns, workloadIps: [10.0.0.1], services: {}, ${fields}}\n`;
const S = (fields: string): string =>
  `services:\n- {name: web, namespace: ns, hostname: web.ns, vips: [], ports: {}, ${fields}}\n`;
const P = (match: string): string =>
  `policies:\n- {name: p, namespace: ns, scope: Namespace, action: Allow, dryRun: false, rules: [[[${match}]]]}\n`;

const mistakes: readonly [claim: string, marked: string, said: RegExp][] = [
  ['a syntax error', 'workloads: [¦', /correct the YAML or JSON/],
  ['a tab as indentation', 'workloads:\n¦\t- uid: a\n', /[Tt]ab/],
  ['two documents', 'workloads: []\n¦---\nworkloads: []\n', /document/],
  ['a key said twice', 'workloads: []\n¦workloads: []\n', /unique/],
  ['an alias to nothing', 'workloads: ¦*gone\n', /alias/i],
  ['a list at the top', '¦- a\n', /expected a mapping, found a list/],
  ['a text at the top', '¦hello\n', /expected a mapping, found "hello"/],
  ['an unknown section', '¦workload: []\n', /unknown field "workload"; use one of: workloads, services, policies/],
  ['a section that is no list', 'workloads: ¦{}\n', /expected a list, found a mapping/],
  ['an unknown field of a workload', W('¦ips: [10.0.0.2]'), /workloads\[0\]\.ips: unknown field "ips"/],
  ['a field in another spelling', W('¦workload_name: x'), /unknown field "workload_name"/],
  [
    'workload IPs missing',
    'workloads:\n- ¦{uid: a, namespace: ns, services: {}}\n',
    /"workloadIps" is missing; add workloadIps/,
  ],
  ['the namespace missing', 'workloads:\n- ¦{uid: a, workloadIps: [], services: {}}\n', /"namespace" is missing/],
  [
    'services of a workload missing',
    'workloads:\n- ¦{uid: a, namespace: ns, workloadIps: []}\n',
    /"services" is missing/,
  ],
  [
    'a bad address',
    'workloads:\n- {uid: a, namespace: ns, workloadIps: [¦10.0.0.300], services: {}}\n',
    /"10.0.0.300" is not an IP address/,
  ],
  [
    'an address with a prefix',
    'workloads:\n- {uid: a, namespace: ns, workloadIps: [¦10.0.0.3/32], services: {}}\n',
    /is not an IP address/,
  ],
  ['a number for a name', W('name: ¦12'), /expected text, found 12; put the value in quotes/],
  [
    'a namespace that would change the identity',
    'workloads:\n- {uid: a, namespace: ¦ns/sa/root, workloadIps: [], services: {}}\n',
    /is not a name/,
  ],
  ['a service account with a percent', W('serviceAccount: ¦a%2fb'), /is not a name/],
  ['a control character', W('node: ¦"a\\nb"'), /control character/],
  ['a very long text', W(`node: ¦${'x'.repeat(2_000)}`), /over 1024 characters/],
  [
    'an unknown protocol',
    W('protocol: ¦LegacyIstioMtls'),
    /"LegacyIstioMtls" is not known here; use one of: TCP, HBONE/,
  ],
  ['a capacity below zero', W('capacity: ¦-1'), /expected a whole number 0\.\.4294967295, found -1/],
  ['a fraction', W('capacity: ¦1.5'), /found 1\.5/],
  ['a text for a truth value', W('nativeTunnel: ¦"true"'), /expected true or false, found "true"/],
  [
    'a port out of range',
    'workloads:\n- {uid: a, namespace: ns, workloadIps: [], services: {ns/web: {80: ¦70000}}}\n',
    /1\.\.65535, found 70000/,
  ],
  [
    'a service port out of range',
    'workloads:\n- {uid: a, namespace: ns, workloadIps: [], services: {ns/web: {¦70000: 80}}}\n',
    /"70000" is not a port/,
  ],
  [
    'a port listed as number and as text',
    'workloads:\n- {uid: a, namespace: ns, workloadIps: [], services: {ns/web: {80: 1, ¦"80": 2}}}\n',
    /port 80 is listed twice/,
  ],
  [
    'a service name without namespace',
    'workloads:\n- {uid: a, namespace: ns, workloadIps: [], services: {¦web: {}}}\n',
    /"web" has no slash: expected namespace\/hostname/,
  ],
  ['a UID with a space', 'workloads:\n- {uid: ¦"a b", namespace: ns, workloadIps: [], services: {}}\n', /is not a UID/],
  ['a tunnel port out of range', W('applicationTunnel: {protocol: PROXY, port: ¦0}'), /1\.\.65535, found 0/],
  [
    'a waypoint that does not exist, by address',
    W('waypoint: {destination: ¦/10.9.9.9}'),
    /"\/10\.9\.9\.9" is neither a service nor a workload of this file/,
  ],
  ['a waypoint that does not exist, by name', W('waypoint: {destination: ¦ns/gone.ns}'), /"ns\/gone\.ns" is neither/],
  ['a waypoint in another network than its address', W('waypoint: {destination: ¦other/10.0.0.1}'), /neither/],
  [
    'a gateway that does not exist',
    W('networkGateway: {destination: ¦n2/10.9.9.9}'),
    /networkGateway\.destination: "n2\/10\.9\.9\.9" is neither/,
  ],
  ['a waypoint of a service that does not exist', S('waypoint: {destination: ¦/10.9.9.9}'), /neither/],
  [
    'a weighted waypoint that does not exist',
    S('weightedWaypoints: [{destination: {destination: ¦/10.9.9.9}, weight: 1}]'),
    /neither/,
  ],
  ['a waypoint without slash', W('waypoint: {destination: ¦gone}'), /has no slash/],
  [
    'a VIP without slash',
    'services:\n- {name: web, namespace: ns, hostname: web.ns, vips: [¦10.0.0.1], ports: {}}\n',
    /"10\.0\.0\.1" has no slash: expected network\/ip; write "\/10\.0\.0\.1"/,
  ],
  [
    'a VIP that is a range',
    'services:\n- {name: web, namespace: ns, hostname: web.ns, vips: [¦/10.0.0.0/8], ports: {}}\n',
    /is not an IP address/,
  ],
  [
    'ports of a service missing',
    'services:\n- ¦{name: web, namespace: ns, hostname: web.ns, vips: []}\n',
    /"ports" is missing/,
  ],
  [
    'a host name with a space',
    'services:\n- {name: web, namespace: ns, hostname: ¦"web ns", vips: [], ports: {}}\n',
    /is not a host name/,
  ],
  [
    'a range of VIPs out of bounds',
    S('cidrVips: [{network: "", cidr: ¦10.0.0.0/33}]'),
    /"10\.0\.0\.0\/33" is not an address range/,
  ],
  ['an unknown scope', S('loadBalancer: {mode: Strict, routingPreferences: [¦Planet]}'), /"Planet" is not known here/],
  ['a subject alternative name that is no SPIFFE ID', S('subjectAltNames: [¦web.example.com]'), /is not a SPIFFE ID/],
  [
    'an endpoint that does not exist',
    S('endpoints: {¦gone: {port: {}}}'),
    /endpoint "gone" is not a workload of this file/,
  ],
  [
    'a range of 33 bits',
    P('{sourceIps: [¦10.0.0.0/33]}'),
    /"10\.0\.0\.0\/33" is not an address range; write address\/length with a length of 0\.\.32/,
  ],
  ['a destination port 70000', P('{destinationPorts: [¦70000]}'), /found 70000/],
  ['an empty list in a match', P('{principals: ¦[]}'), /empty, which would match everything/],
  ['a string match of two kinds', P('{principals: [¦{Exact: a, Prefix: b}]}'), /exactly one key/],
  ['a string match of none', P('{principals: [¦{}]}'), /exactly one key/],
  [
    'a string match in lower case',
    P('{principals: [{¦exact: a}]}'),
    /"exact" is not known here; use one of: Exact, Prefix, Suffix, Presence/,
  ],
  ['a presence with a value', P('{principals: [{Presence: ¦yes}]}'), /Presence takes no value/],
  ['a tagged presence with a value', P('{principals: [!Presence ¦[yes]]}'), /Presence takes no value/],
  ['a tagged mapping', P('{principals: [!Exact {¦Equal: a}]}'), /"Equal" is not known here/],
  ['a plain text for a string match', P('{principals: [¦a]}'), /expected a mapping, found "a"/],
  ['an unknown field of a match', P('{¦hosts: [a]}'), /unknown field "hosts"/],
  [
    'rules of two levels',
    'policies:\n- {name: p, namespace: ns, scope: Namespace, action: Allow, dryRun: false, rules: [[¦{}]]}\n',
    /expected a list, found a mapping/,
  ],
  [
    'an unknown action',
    'policies:\n- {name: p, namespace: ns, scope: Namespace, action: ¦Custom, dryRun: false, rules: []}\n',
    /"Custom" is not known here/,
  ],
  [
    'a policy for one namespace that names none',
    'policies:\n- {name: p, namespace: ¦"", scope: Namespace, action: Allow, dryRun: false, rules: []}\n',
    /the policy is for one namespace and names none; write the namespace, or scope: Global/,
  ],
  [
    'dryRun missing',
    'policies:\n- ¦{name: p, namespace: ns, scope: Namespace, action: Allow, rules: []}\n',
    /"dryRun" is missing/,
  ],
];

for (const [claim, marked, said] of mistakes) {
  test(`${claim} refuses the file and is pointed at`, () => {
    const before = marked.slice(0, marked.indexOf('¦'));
    const position = `${before.split('\n').length}:${before.length - before.lastIndexOf('\n')}`;
    const result = parseMeshFile(marked.replace('¦', ''));
    assert(result.kind === 'refused', 'the file was taken');
    const [first = ''] = shown(result);
    assert.match(first, said);
    assert(first.startsWith(`mesh.yaml:${position}: `), `${first} is not at ${position}`);
    assert.equal(result.issueCount, 1, shown(result).join('\n'));
  });
}

for (const [claim, text, said] of [
  [
    'two workloads with one UID',
    `workloads:\n- {uid: a, namespace: ns, workloadIps: [], services: {}}\n- {uid: a, namespace: ns, workloadIps: [], services: {}}\n`,
    'mesh.yaml:3:9: workloads[1].uid: duplicate workload UID "a", first at 2:9; keep one of them',
  ],
  [
    'two unnamed workloads that would be the same',
    `workloads:\n- {namespace: ns, workloadIps: [], services: {}}\n- {namespace: ns, workloadIps: [], services: {}}\n`,
    'mesh.yaml:3:3: workloads[1].uid: duplicate workload UID "Kubernetes//Pod/ns/", first at 2:3; keep one of them',
  ],
  [
    'two services with one host name in a namespace',
    `services:\n- {name: a, namespace: ns, hostname: h.ns, vips: [], ports: {}}\n- {name: b, namespace: ns, hostname: h.ns, vips: [], ports: {}}\n`,
    'mesh.yaml:3:38: services[1].hostname: duplicate service "ns/h.ns", first at 2:38; keep one of them',
  ],
  [
    'two policies with one name in a namespace',
    `${P('{}')}- {name: p, namespace: ns, scope: Global, action: Deny, dryRun: false, rules: []}\n`,
    'mesh.yaml:3:10: policies[1].name: duplicate policy "ns/p", first at 2:10; keep one of them',
  ],
] as const) {
  test(`${claim} refuse the file and name both places`, () => {
    const result = parseMeshFile(text);
    assert.equal(result.kind, 'refused');
    assert.deepEqual(shown(result), [said]);
  });
}

test('services of one host name in two namespaces are two services', () => {
  const one = (namespace: string): string =>
    `- {name: a, namespace: ${namespace}, hostname: h.example, vips: [], ports: {}}\n`;
  assert.equal(accepted(`services:\n${one('a')}${one('b')}`).services.length, 2);
});

test('all mistakes are reported at once, in the order of the file', () => {
  const result = parseMeshFile(`${P('{sourceIps: [x], destinationPorts: [0]}')}workloads:\n- {name: 1}\n`);
  const lines = shown(result).map((line) => line.split(':')[1]);
  assert.deepEqual(lines, ['2', '2', '4', '4', '4', '4']);
});

test('a thousand mistakes are counted, a hundred kept', () => {
  const result = parseMeshFile(`workloads:\n${'- 1\n'.repeat(1_000)}`);
  assert(result.kind === 'refused');
  assert.equal(result.issueCount, 1_000);
  assert.equal(result.issues.length, 100);
});

for (const [claim, text, warning] of [
  [
    'a policy key nobody defines',
    W('authorizationPolicies: [ns/gone]'),
    /names policy "ns\/gone", which does not exist/,
  ],
  [
    'a service nobody defines',
    'workloads:\n- {uid: a, namespace: ns, workloadIps: [], services: {ns/web: {}}}\n',
    /is an endpoint of "ns\/web", which does not exist/,
  ],
  [
    'a selector policy no workload names',
    'policies:\n- {name: p, namespace: ns, scope: WorkloadSelector, action: Deny, dryRun: false, rules: []}\n',
    /no workload names it: it decides nothing/,
  ],
] as const) {
  test(`${claim} loads with a warning`, () => {
    const result = parseMeshFile(text);
    assert.equal(result.kind, 'mesh');
    assert.match(shown(result).join('\n'), warning);
    assert.equal(shown(result).length, 1);
  });
}

test('a bomb of aliases is refused quickly', { timeout: 10_000 }, () => {
  const levels = 'bcdefghijk'.split('').map(
    (name, i, all) =>
      `${name}: &${name} [${Array(10)
        .fill(`*${all[i - 1] ?? 'a'}`)
        .join(', ')}]`,
  );
  const result = parseMeshFile(`a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n${levels.join('\n')}\n`);
  assert(result.kind === 'refused');
  assert.match(shown(result)[0] ?? '', /alias/i);
});

test('a nesting deeper than any stack is refused', { timeout: 20_000 }, () => {
  for (const open of ['[', '{a: ', '- ']) assert.equal(parseMeshFile(open.repeat(20_000)).kind, 'refused', open);
});

test('keys that mean something to JavaScript are only unknown fields', () => {
  for (const key of ['__proto__', 'constructor', 'toString']) {
    assert.match(shown(parseMeshFile(`${key}: {workloads: []}\n`))[0] ?? '', /unknown field/);
    assert.match(shown(parseMeshFile(`{"${key}": {}}`))[0] ?? '', /unknown field/);
  }
});

test('any text gives a mesh or issues with a position, and nothing is thrown', () => {
  const piece = fc.constantFrom(
    'workloads',
    'services',
    'policies',
    ': ',
    '\n',
    '- ',
    '{',
    '}',
    '[',
    ']',
    'uid',
    'a',
    '80',
    '"',
    '&x ',
    '*x',
    ', ',
    '  ',
    '!!map ',
    '? ',
  );
  const text = fc.oneof(
    fc.string(),
    fc.array(piece, { maxLength: 30 }).map((list) => list.join('')),
  );
  const mutated = fc
    .tuple(fc.nat(EXAMPLE.length), fc.nat(6), piece)
    .map(([at, cut, put]) => EXAMPLE.slice(0, at) + put + EXAMPLE.slice(at + cut));
  fc.assert(
    fc.property(fc.oneof(text, mutated), (file) => {
      const result = parseMeshFile(file);
      if (result.kind === 'mesh') return;
      assert(result.issues.length > 0);
      for (const { line, column, problem } of result.issues) assert(line >= 1 && column >= 1 && problem !== '');
    }),
    { numRuns: 500 },
  );
});
