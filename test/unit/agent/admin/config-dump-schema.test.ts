/** `/config_dump` of an agent that uses everything is what istioctl, Kiali and others decode. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { configDump, workloadState } from '../../../../src/agent/admin/config-dump.ts';
import { configSection } from '../../../../src/agent/admin/config-dump-settings.ts';
import { jsonPieces } from '../../../../src/agent/admin/json-pieces.ts';
import type { PodView } from '../../../../src/agent/admin/views.ts';
import { buildInfo } from '../../../../src/agent/build-info.ts';
import { resolveConfig } from '../../../../src/agent/settings/config.ts';
import type { Environment } from '../../../../src/agent/settings/input.ts';
import { snapshotOf } from '../../../../src/identity/certificate-snapshot.ts';
import { dumpMesh } from '../../../../src/model/dump.ts';
import { MeshIndex, type MeshState } from '../../../../src/model/mesh-index.ts';
import { parseMeshFile } from '../../../../src/xds/local-file.ts';
import { meshCa } from '../../../support/certs.ts';
import { schemaErrors } from '../../../support/config-dump-schema.ts';
import { RICH_MESH } from '../../../support/rich-mesh.ts';
import { memberOf, workload } from '../../model/sample-mesh.ts';
import { inbound, outbound, trafficFixture } from '../../telemetry/traffic-fixture.ts';

type Tree = Record<string, unknown>;

const SHOP = 'spiffe://cluster.local/ns/retail/sa/shop';
const CART = 'spiffe://cluster.local/ns/retail/sa/cart';
const material = await (await meshCa()).material(SHOP);

function richMesh(): MeshState {
  const parsed = parseMeshFile(RICH_MESH);
  assert(parsed.kind === 'mesh', JSON.stringify(parsed));
  assert.deepEqual(parsed.state.rejectedPolicies, []);
  // What a file cannot say: an endpoint before its service, and a policy that xDS sent and nobody understands.
  const early = workload('early', { services: memberOf({ later: { 80: 8_080 } }) });
  const rejected = { name: 'odd', namespace: 'retail', scope: 'Namespace', why: 'unknown match' } as const;
  return { ...parsed.state, workloads: [...parsed.state.workloads, early], rejectedPolicies: [rejected] };
}

function pods(): object {
  const { traffic } = trafficFixture();
  const { originalDst: _, ...withoutHost } = inbound;
  for (const connection of [outbound, { ...withoutHost, id: 'c-3' }, { ...inbound, originalDst: 'cart.retail' }]) {
    traffic.open(connection);
  }
  const up: PodView = {
    uid: 'pod-1',
    name: 'shop-0',
    namespace: 'retail',
    serviceAccount: 'shop',
    state: 'Up',
    repairs: 0,
  };
  return workloadState([up, { ...up, uid: 'pod-2', state: 'Pending' }], traffic.live());
}

function dump(env: Environment = {}): Tree {
  const result = resolveConfig({ NODE_NAME: 'n1', LOCAL_XDS_PATH: 'm', CULVERT_PODS: 'p', ...env }, {});
  assert(result.ok, JSON.stringify(result));
  const mesh = dumpMesh(new MeshIndex(richMesh()));
  const { stagedServices: _, ...staticConfig } = dumpMesh(new MeshIndex(richMesh()));
  const sections = configDump({
    ...mesh,
    staticConfig,
    certificates: [
      snapshotOf(SHOP, 'Available', material),
      snapshotOf(CART, 'Unavailable: signing gRPC error (Unavailable): no route', undefined),
    ],
    config: configSection(result.config),
    version: buildInfo('1.2.3', {}),
    workloadState: pods(),
  });
  return JSON.parse([...jsonPieces(sections, { isSorted: true })].join('')) as Tree;
}

/** `dump()` with one value replaced, or removed when `value` is `undefined`. */
function dumpWith(path: readonly (string | number)[], value: unknown): Tree {
  const tree = dump();
  const owner = path.slice(0, -1).reduce<unknown>((node, key) => (node as Tree)[key], tree) as Tree;
  const last = path.at(-1) ?? assert.fail('no path');
  assert(value !== undefined || last in owner, `${path.join('.')} is not in the dump`);
  owner[last] = value;
  return JSON.parse(JSON.stringify(tree)) as Tree;
}

test('the dump of an agent that uses everything keeps to the schema', () => {
  assert.deepEqual(schemaErrors(dump()), []);
});

test('it uses everything: every key of the schema that a mesh can fill is there', () => {
  const text = JSON.stringify(dump());
  const keys =
    'cidrVips weightedWaypoints loadBalancer ipFamilies subjectAltNames networkGateway applicationTunnel nativeTunnel ' +
    'authorizationPolicies locality subzone hostname notNamespaces notPrincipals notServiceAccounts notSourceIps ' +
    'notDestinationIps notDestinationPorts Exact Prefix Suffix rejected rootCerts stagedServices originalDst';
  assert.deepEqual(
    keys.split(' ').filter((key) => !text.includes(`"${key}":`)),
    [],
  );
});

const environments: readonly Environment[] = [
  { IPV6_ENABLED: 'false', KEEPALIVE_ENABLED: 'false', ENABLE_ORIG_SRC: 'false' },
  { ENABLE_ORIG_SRC: 'true', NETWORK: 'net1', ISTIO_META_FOO: 'bar', CRL_PATH: '/crl.pem' },
];

for (const env of environments) {
  test(`with ${Object.keys(env).join(', ')} set it still keeps to the schema`, () => {
    assert.deepEqual(schemaErrors(dump(env)), []);
  });
}

/** Each is a mistake that breaks a reader. */
const mistakes: readonly { readonly name: string; readonly at: readonly (string | number)[]; readonly is: unknown }[] =
  [
    { name: 'a missing section', at: ['policies'], is: undefined },
    { name: 'an unknown section', at: ['extra'], is: 1 },
    { name: 'a missing setting', at: ['config', 'xdsHeaders'], is: undefined },
    { name: 'a setting by another name', at: ['config', 'nodeName'], is: 'n1' },
    { name: 'a duration as a number', at: ['config', 'secretTtl'], is: 86_400 },
    { name: 'a root certificate as a path (Kiali)', at: ['config', 'caRootCert'], is: '/root.pem' },
    { name: 'a resolver timeout as a number (Kiali)', at: ['config', 'dnsResolverOpts', 'timeout'], is: 5 },
    { name: 'a capacity over 32 bits (istioctl)', at: ['workloads', 0, 'capacity'], is: 2 ** 32 },
    { name: 'a status nobody knows', at: ['workloads', 0, 'status'], is: 'healthy' },
    { name: 'a workload without addresses field', at: ['workloads', 0, 'workloadIps'], is: undefined },
    { name: 'an empty optional text', at: ['workloads', 0, 'network'], is: '' },
    { name: 'a VIP without its network slash', at: ['services', 0, 'vips'], is: ['10.96.0.12'] },
    { name: 'a service without visibility', at: ['services', 0, 'visibility'], is: undefined },
    { name: 'a port as text', at: ['services', 0, 'ports'], is: { 80: '8080' } },
    { name: 'rules of two levels', at: ['policies', 0, 'rules'], is: [[{ destinationPorts: [1] }]] },
    {
      name: 'a string match in our own spelling',
      at: ['policies', 0, 'rules'],
      is: [[[{ namespaces: [{ exact: 'a' }] }]]],
    },
    { name: 'a serial number as a number', at: ['certificates', 0, 'certChain'], is: [{ serialNumber: 1 }] },
    { name: 'a certificate state of our own', at: ['certificates', 0, 'state'], is: 'Ready' },
    {
      name: 'PEM that is not base64',
      at: ['certificates', 1, 'certChain', 0, 'pem'],
      is: '-----BEGIN CERTIFICATE-----',
    },
    {
      name: 'a time with a fraction',
      at: ['certificates', 1, 'certChain', 0, 'validFrom'],
      is: '2026-01-01T00:00:00.5Z',
    },
    {
      name: 'connections of a pending pod',
      at: ['workloadState', 'pod-2', 'connections'],
      is: { inbound: [], outbound: [] },
    },
    { name: 'an up pod without connections', at: ['workloadState', 'pod-1', 'connections'], is: undefined },
  ];

for (const { name, at, is } of mistakes) {
  test(`the schema refuses ${name}`, () => assert.notDeepEqual(schemaErrors(dumpWith(at, is)), []));
}
