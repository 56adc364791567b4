import assert from 'node:assert/strict';
import { test } from 'node:test';
import { create, type MessageInitShape, toBinary } from '@bufbuild/protobuf';
import fc from 'fast-check';
import { MeshError } from '../../../src/base/errors.ts';
import { formatCidr } from '../../../src/base/ip.ts';
import { isKnownReference } from '../../../src/model/gateway-reference.ts';
import { EMPTY_MESH, MeshIndex } from '../../../src/model/mesh-index.ts';
import { parseSpiffeId, workloadIdentity } from '../../../src/model/spiffe.ts';
import type { Service, Workload } from '../../../src/model/workload.ts';
import { AuthorizationSchema } from '../../../src/wire/pb/authorization_pb.ts';
import { AddressSchema, type ServiceSchema, type WorkloadSchema } from '../../../src/wire/pb/workload_pb.ts';
import { decodeAddress, decodeAuthorization, rejectedPolicy } from '../../../src/xds/decode-resource.ts';

type WorkloadInit = MessageInitShape<typeof WorkloadSchema>;
type ServiceInit = MessageInitShape<typeof ServiceSchema>;
type AuthorizationInit = MessageInitShape<typeof AuthorizationSchema>;

const IPV4 = new Uint8Array([10, 0, 0, 7]);

function workloadBytes(fields: WorkloadInit = {}): Uint8Array {
  const value = { uid: 'Kubernetes//Pod/shop/cart', name: 'cart', namespace: 'shop', addresses: [IPV4], ...fields };
  return toBinary(AddressSchema, create(AddressSchema, { type: { case: 'workload', value } }));
}

function serviceBytes(fields: ServiceInit = {}): Uint8Array {
  const value = { name: 'cart', namespace: 'shop', hostname: 'cart.shop.svc.cluster.local', ...fields };
  return toBinary(AddressSchema, create(AddressSchema, { type: { case: 'service', value } }));
}

function policyBytes(fields: AuthorizationInit = {}): Uint8Array {
  return toBinary(AuthorizationSchema, create(AuthorizationSchema, { name: 'only-web', namespace: 'shop', ...fields }));
}

function workloadOf(fields: WorkloadInit): Workload {
  const decoded = decodeAddress(workloadBytes(fields));
  assert(decoded.kind === 'workload');
  return decoded.workload;
}

function serviceOf(fields: ServiceInit): Service {
  const decoded = decodeAddress(serviceBytes(fields));
  assert(decoded.kind === 'service');
  return decoded.service;
}

test('what a workload leaves out has the defaults of the reference', () => {
  assert.deepEqual(workloadOf({}), {
    uid: 'Kubernetes//Pod/shop/cart',
    name: 'cart',
    namespace: 'shop',
    trustDomain: 'cluster.local',
    serviceAccount: 'default',
    authorizationPolicies: [],
    network: '',
    ips: ['10.0.0.7'],
    hostname: '',
    protocol: 'TCP',
    networkMode: 'Standard',
    nativeTunnel: false,
    status: 'Healthy',
    capacity: 1,
    services: new Map(),
    node: '',
    clusterId: 'Kubernetes',
    workloadName: '',
    workloadType: 'deployment',
    canonicalName: '',
    canonicalRevision: '',
    locality: { region: '', zone: '', subzone: '' },
  });
});

test('a capacity of 0 is kept: it takes no traffic', () => {
  assert.equal(workloadOf({ capacity: 0 }).capacity, 0);
});

test('an endpoint port without a number says nothing about its service port', () => {
  const ports = [
    { servicePort: 80, targetPort: 8080 },
    { servicePort: 81, targetPort: 0 },
  ];
  assert.deepEqual(
    workloadOf({ services: { 'shop/cart': { ports } } }).services,
    new Map([['shop/cart', new Map([[80, 8080]])]]),
  );
});

test('TCP and UDP of one service port are one entry, a named port keeps its 0', () => {
  const ports = [
    { servicePort: 53, targetPort: 5353 },
    { servicePort: 53, targetPort: 5354 },
    { servicePort: 80, targetPort: 0 },
  ];
  assert.deepEqual(
    serviceOf({ ports }).ports,
    new Map([
      [53, 5354],
      [80, 0],
    ]),
  );
});

test('a full or absent prefix is an exact address, a shorter one a range without host bits', () => {
  const { vips, cidrVips } = serviceOf({
    addresses: [
      { network: 'n1', address: IPV4 },
      { network: 'n1', address: IPV4, length: 32 },
      { network: 'n2', address: IPV4, length: 8 },
      { network: 'n2', address: new Uint8Array(16).fill(0xfd, 0, 1), length: 7 },
    ],
  });
  assert.deepEqual(vips, [
    { network: 'n1', ip: '10.0.0.7' },
    { network: 'n1', ip: '10.0.0.7' },
  ]);
  assert.deepEqual(cidrVips, [
    { network: 'n2', cidr: '10.0.0.0/8' },
    { network: 'n2', cidr: 'fc00::/7' },
  ]);
});

test('a gateway is an address or a name, on 15008 unless it says otherwise', () => {
  const hostname = { namespace: 'infra', hostname: 'waypoint.infra' };
  assert.deepEqual(workloadOf({ waypoint: { destination: { case: 'hostname', value: hostname } } }).waypoint, {
    kind: 'hostname',
    ...hostname,
    hbonePort: 15_008,
  });
  const value = { network: 'n2', address: IPV4 };
  assert.deepEqual(
    workloadOf({ networkGateway: { destination: { case: 'address', value }, hboneMtlsPort: 15_108 } }).networkGateway,
    { kind: 'address', network: 'n2', ip: '10.0.0.7', hbonePort: 15_108 },
  );
});

for (const { name, bytes, reason } of [
  { name: 'no uid', bytes: workloadBytes({ uid: '' }), reason: /^uid: is empty/ },
  { name: 'an address of 5 bytes', bytes: workloadBytes({ addresses: [new Uint8Array(5)] }), reason: /addresses\[0\]/ },
  { name: 'an empty address', bytes: workloadBytes({ addresses: [new Uint8Array()] }), reason: /addresses\[0\]/ },
  { name: 'the predecessor of HBONE', bytes: workloadBytes({ tunnelProtocol: 2 }), reason: /tunnel_protocol: value 2/ },
  { name: 'an unknown status', bytes: workloadBytes({ status: enumValue(9) }), reason: /status: value 9/ },
  { name: 'an unknown network mode', bytes: workloadBytes({ networkMode: enumValue(9) }), reason: /network_mode/ },
  {
    name: 'a waypoint that is nowhere',
    bytes: workloadBytes({ waypoint: {} }),
    reason: /waypoint: has no destination/,
  },
  { name: 'a service key without slash', bytes: workloadBytes({ services: { cart: {} } }), reason: /services\[0\]/ },
  {
    name: 'port 70000',
    bytes: workloadBytes({ services: { 'a/b': { ports: [{ servicePort: 70_000, targetPort: 1 }] } } }),
    reason: /70000 is not a port/,
  },
  { name: 'a service without host name', bytes: serviceBytes({ hostname: '' }), reason: /^hostname: is empty/ },
  { name: 'a service without namespace', bytes: serviceBytes({ namespace: '' }), reason: /^namespace: is empty/ },
  {
    name: 'an unspecified scope',
    bytes: serviceBytes({ loadBalancing: { routingPreference: [0] } }),
    reason: /routing_preference\[0\]/,
  },
  {
    name: 'an unknown balancing mode',
    bytes: serviceBytes({ loadBalancing: { mode: enumValue(7) } }),
    reason: /load_balancing.mode/,
  },
  {
    name: 'an unknown health policy',
    bytes: serviceBytes({ loadBalancing: { healthPolicy: enumValue(7) } }),
    reason: /health_policy/,
  },
  { name: 'unknown IP families', bytes: serviceBytes({ ipFamilies: enumValue(7) }), reason: /ip_families/ },
  {
    name: 'a prefix of 33 bits',
    bytes: serviceBytes({ addresses: [{ address: IPV4, length: 33 }] }),
    reason: /33 is over 32/,
  },
  { name: 'neither workload nor service', bytes: new Uint8Array(), reason: /neither/ },
  { name: 'rubbish', bytes: new Uint8Array([0xff, 0xff, 0xff]), reason: /not a protobuf message/ },
  { name: '5 MiB', bytes: new Uint8Array(5 * 1024 * 1024), reason: /resource of 5242880 bytes/ },
]) {
  test(`an address resource with ${name} is refused`, () => {
    assert.throws(() => decodeAddress(bytes), isRefusal(reason));
  });
}

const HOSTILE = ['a/sa/b', '../x', 'a b', 'a\nb', '\u0161dmin', 'a'.repeat(300), '?'];

test('an odd account, namespace or trust domain is kept as one that no certificate can have', () => {
  for (const odd of HOSTILE) {
    for (const field of ['namespace', 'serviceAccount', 'trustDomain'] as const) {
      const workload = workloadOf({ [field]: odd });
      assert.equal(parseSpiffeId(workloadIdentity(workload)), undefined, `${field} ${odd}`);
      assert.match(workloadIdentity(workload), /^[\x21-\x7e]{1,600}$/);
    }
  }
});

test('odd words of users, which they can write into objects, do not refuse what holds them', () => {
  const odd = `a\r\nb${'x'.repeat(70_000)}`;
  const workload = workloadOf({ name: odd, network: odd, locality: { region: odd }, canonicalName: odd, node: odd });
  for (const shown of [
    workload.name,
    workload.network,
    workload.locality.region,
    workload.canonicalName,
    workload.node,
  ]) {
    assert.equal(shown, `a??b${'x'.repeat(1_020)}`);
  }
  assert.equal(workloadOf({ hostname: 'unix:///run/a b.sock' }).hostname, '');
  assert.equal(workloadOf({ uid: odd }).uid, odd);
  assert.deepEqual(serviceOf({ subjectAltNames: ['www.example.com'] }).subjectAltNames, ['www.example.com']);
  // Annotation `ambient.istio.io/waypoint-inbound-binding: PROXY/99999`, which istiod passes on.
  assert.deepEqual(workloadOf({ applicationTunnel: { protocol: 1, port: 99_999 } }).applicationTunnel, {
    protocol: 'PROXY',
    port: 99_999,
  });
});

test('a canary without an address, as that of a gateway whose addresses are of another kind, is one that leads nowhere', () => {
  const { weightedWaypoints } = serviceOf({ weightedWaypoints: [{ weight: 1 }] });
  const index = new MeshIndex({ ...EMPTY_MESH, services: [serviceOf({ weightedWaypoints: [{ weight: 1 }] })] });
  assert.deepEqual(
    weightedWaypoints.map(({ weight, destination }) => [weight, isKnownReference(index, destination)]),
    [[1, false]],
  );
});

test('a rule with words that nothing can match says what it says', () => {
  const match: MatchInit = {
    destinationPorts: [0],
    namespaces: [{ matchType: { case: 'exact', value: 'a\nb' } }],
    serviceAccounts: [{ namespace: 'shop', serviceAccount: '' }],
  };
  const [[[decoded] = []] = []] = decodeAuthorization(matching(match)).rules;
  assert.deepEqual(decoded, {
    destinationPorts: [0],
    namespaces: [{ kind: 'exact', value: 'a\nb' }],
    serviceAccounts: [{ namespace: 'shop', serviceAccount: '' }],
  });
});

test('a policy keeps every field of its rules', () => {
  const web = { matchType: { case: 'exact', value: 'cluster.local/ns/shop/sa/web' } } as const;
  const anybody = { matchType: { case: 'presence', value: {} } } as const;
  const policy = decodeAuthorization(
    policyBytes({
      scope: 2,
      action: 1,
      dryRun: true,
      groups: [
        {
          rules: [
            {
              matches: [
                {
                  principals: [web],
                  notPrincipals: [anybody],
                  sourceIps: [{ address: IPV4, length: 8 }],
                  destinationPorts: [80],
                  serviceAccounts: [{ namespace: 'shop', serviceAccount: 'web' }],
                },
              ],
            },
          ],
        },
      ],
    }),
  );
  const [[[match] = []] = []] = policy.rules;
  assert.deepEqual(
    { ...policy, rules: [], sourceIps: match?.sourceIps?.map(formatCidr) },
    {
      name: 'only-web',
      namespace: 'shop',
      scope: 'WorkloadSelector',
      action: 'Deny',
      dryRun: true,
      rules: [],
      sourceIps: ['10.0.0.0/8'],
    },
  );
  assert.deepEqual(
    { ...match, sourceIps: [] },
    {
      principals: [{ kind: 'exact', value: 'cluster.local/ns/shop/sa/web' }],
      notPrincipals: [{ kind: 'presence' }],
      sourceIps: [],
      destinationPorts: [80],
      serviceAccounts: [{ namespace: 'shop', serviceAccount: 'web' }],
    },
  );
});

type MatchInit = NonNullable<
  NonNullable<NonNullable<AuthorizationInit['groups']>[number]['rules']>[number]['matches']
>[number];

function matching(match: MatchInit): Uint8Array {
  return policyBytes({ groups: [{ rules: [{ matches: [match] }] }] });
}

for (const { name, bytes, reason } of [
  { name: 'port 65536', bytes: matching({ notDestinationPorts: [65_536] }), reason: /not_destination_ports/ },
  { name: 'a string match without a kind', bytes: matching({ namespaces: [{}] }), reason: /namespaces\[0\]/ },
  {
    name: 'an address of 3 bytes',
    bytes: matching({ sourceIps: [{ address: new Uint8Array(3) }] }),
    reason: /source_ips\[0\]/,
  },
  {
    name: 'a prefix of 129 bits',
    bytes: matching({ notSourceIps: [{ address: new Uint8Array(16), length: 129 }] }),
    reason: /129 is over 128/,
  },
  { name: 'an extension', bytes: matching({ extensions: [{ name: 'x' }] }), reason: /extensions: are not known/ },
  { name: 'an unknown action', bytes: policyBytes({ action: enumValue(5) }), reason: /action: value 5/ },
  {
    name: 'a field of a rule that nobody knows',
    bytes: policyWithUnknownMatchField(),
    reason: /field 100 is not known here/,
  },
]) {
  test(`a policy with ${name} is refused, and its target is still known`, () => {
    assert.throws(() => decodeAuthorization(bytes), isRefusal(reason));
    assert.deepEqual(rejectedPolicy(bytes, 'why'), {
      name: 'only-web',
      namespace: 'shop',
      scope: 'Global',
      why: 'why',
    });
  });
}

for (const { name, bytes } of [
  { name: 'an unknown scope', bytes: policyBytes({ scope: enumValue(4) }) },
  { name: 'no name', bytes: policyBytes({ name: '' }) },
  { name: 'the scope of a namespace, and no namespace', bytes: policyBytes({ scope: 1, namespace: '' }) },
  // It would have decided nothing: refusing for it would be more than anybody asked for.
  { name: 'an unknown action, which is only tried out,', bytes: policyBytes({ action: enumValue(5), dryRun: true }) },
  { name: 'rubbish', bytes: new Uint8Array([0x0f]) },
]) {
  test(`a policy with ${name} is refused without a target`, () => {
    assert.throws(() => decodeAuthorization(bytes), isRefusal(/./));
    assert.equal(rejectedPolicy(bytes, 'why'), undefined);
  });
}

test('a message nested a hundred deep is refused', () => {
  let bytes = new Uint8Array();
  // Field 1, length-delimited: a group in a group in a group, where none belongs.
  for (let depth = 0; depth < 100; depth += 1) bytes = new Uint8Array([0x0a, bytes.length, ...bytes].slice(0, 120));
  assert.throws(() => decodeAddress(bytes), isRefusal(/./));
});

test('any bytes at all give a record or a MeshError', () => {
  const samples = [
    workloadBytes({ services: { 'a/b': { ports: [{ servicePort: 1, targetPort: 2 }] } } }),
    serviceBytes(),
    policyBytes(),
  ];
  const mutated = fc
    .tuple(fc.constantFrom(...samples), fc.array(fc.tuple(fc.nat(200), fc.nat(255)), { maxLength: 4 }))
    .map(([bytes, changes]) => {
      const copy = bytes.slice();
      for (const [at, value] of changes) copy[at % copy.length] = value;
      return copy;
    });
  fc.assert(
    fc.property(fc.oneof(fc.uint8Array({ maxLength: 200 }), mutated), (bytes) => {
      for (const decode of [decodeAddress, decodeAuthorization]) {
        try {
          decode(bytes);
        } catch (error) {
          assert(error instanceof MeshError, String(error));
        }
      }
    }),
  );
});

function isRefusal(reason: RegExp): (error: unknown) => true {
  return (error) => {
    assert(error instanceof MeshError);
    assert.match(error.code, /^CV-WIRE-(MALFORMED|TOO-LARGE)$/);
    assert.match(error.message, reason);
    return true;
  };
}

/** A number that only a newer control plane knows. */
function enumValue(value: number): never {
  return value as never;
}

/** groups[0].rules[0].matches[0] with a varint in field 100. */
function policyWithUnknownMatchField(): Uint8Array {
  const nested = (tag: number, bytes: readonly number[]): readonly number[] => [tag, bytes.length, ...bytes];
  const groups = nested(0x2a, nested(0x0a, nested(0x12, [0xa0, 0x06, 0x01])));
  return new Uint8Array([...policyBytes(), ...groups]);
}
