import assert from 'node:assert/strict';
import { test } from 'node:test';
import { resolveConfig } from '../../../../src/agent/settings/config.ts';
import type { Environment, Start } from '../../../../src/agent/settings/input.ts';

const MINIMAL = { NODE_NAME: 'n1', CULVERT_PODS: 'pods.yaml' };

interface Case {
  readonly env?: Environment;
  readonly flags?: Environment;
  readonly defaults?: Start['defaults'];
}

function read({ env = {}, flags = {}, defaults = 'culvert' }: Case) {
  const source = { CULVERT_CA_DIR: '/ca' };
  return resolveConfig({ ...MINIMAL, ...source, ...env }, flags, { defaults, args: [], readText: () => undefined });
}

function xdsOf(given: Case) {
  const result = read(given);
  assert(result.ok, JSON.stringify(result));
  return result.config.xds ?? assert.fail('no control plane');
}

function issuesOf(given: Case): readonly string[] {
  const result = read(given);
  return result.ok ? [] : result.issues.map(({ setting, problem }) => `${setting} ${problem}`);
}

const ISTIOD = { kind: 'tls', host: 'istiod.istio-system.svc', port: 15_012 };

for (const [claim, given, want] of [
  ['a flag', { flags: { 'xds-address': 'istiod.istio-system.svc:15012' } }, ISTIOD],
  ['a variable', { env: { XDS_ADDRESS: 'https://istiod.istio-system.svc:15012' } }, ISTIOD],
  ['ProxyConfig', { env: { PROXY_CONFIG: 'discoveryAddress: istiod.istio-system.svc:15012' } }, ISTIOD],
  ['a start as ztunnel in Kubernetes', { defaults: 'ztunnel', env: { KUBERNETES_SERVICE_HOST: '10.96.0.1' } }, ISTIOD],
  ['a start as ztunnel elsewhere', { defaults: 'ztunnel' }, { kind: 'tls', host: 'localhost', port: 15_012 }],
] as const) {
  test(`the control plane is named by ${claim}; a mesh file is not required then`, () => {
    const result = read(given);
    assert(result.ok, JSON.stringify(result));
    assert.deepEqual([result.config.xds?.server.address, result.config.localMesh], [want, undefined]);
  });
}

test('an empty address is no control plane, so that a mesh file is required', () => {
  assert.deepEqual(issuesOf({ defaults: 'ztunnel', env: { XDS_ADDRESS: '' } }), [
    '--mesh-file or LOCAL_XDS_PATH is required: a file with workloads, services, policies; or set XDS_ADDRESS to a control plane',
  ]);
});

test('a control plane and a mesh file may be together', () => {
  const result = read({ env: { XDS_ADDRESS: 'istiod:15012', LOCAL_XDS_PATH: '/mesh.yaml' } });
  assert(result.ok);
  assert.deepEqual(result.config.localMesh, { kind: 'file', path: '/mesh.yaml' });
});

test('roots, other name, headers and on-demand mode are as ztunnel reads them', () => {
  const { server, isOnDemand } = xdsOf({
    env: {
      XDS_ADDRESS: 'istiod:15012',
      XDS_ROOT_CA: 'SYSTEM',
      ALT_XDS_HOSTNAME: 'istiod.other',
      XDS_HEADER_X_Team: 'mesh',
      XDS_ON_DEMAND: 'true',
      AUTH_TOKEN: 'abc',
    },
  });
  assert.deepEqual(server, {
    address: { kind: 'tls', host: 'istiod', port: 15_012 },
    roots: { kind: 'system' },
    altHostname: 'istiod.other',
    token: { kind: 'literal', token: 'abc' },
    headers: new Map([['x_team', 'mesh']]),
  });
  assert.equal(isOnDemand, true);
});

test('the node says who it is, and metadata win over it', () => {
  const { node } = xdsOf({
    env: {
      XDS_ADDRESS: 'istiod:15012',
      INSTANCE_IP: '10.0.0.9',
      POD_NAME: 'agent-x',
      POD_NAMESPACE: 'istio-system',
      ISTIO_META_CLUSTER_ID: 'c1',
      ISTIO_METAJSON_LABELS: '{"app":"agent"}',
    },
  });
  assert.deepEqual(node, {
    instanceIp: '10.0.0.9',
    podName: 'agent-x',
    podNamespace: 'istio-system',
    nodeName: 'n1',
    metadata: { CLUSTER_ID: 'c1' },
    jsonMetadata: { LABELS: { app: 'agent' } },
  });
});

for (const [name, value, problem] of [
  ['XDS_ADDRESS', 'http://istiod:15010', /^XDS_ADDRESS cannot be used: scheme "http" would send credentials in clear/],
  ['INSTANCE_IP', 'node-1', /^INSTANCE_IP must be an IP address, got "node-1"/],
  ['XDS_ON_DEMAND', 'yes', /^XDS_ON_DEMAND must be one of true, false/],
  ['XDS_HEADER_a:b', 'x', /^XDS_HEADER_a:b is not a header name/],
  ['ISTIO_METAJSON_LABELS', '{', /^ISTIO_METAJSON_LABELS is not JSON/],
] as const) {
  test(`${name}=${value} is refused`, () => {
    const [issue, ...more] = issuesOf({ env: { XDS_ADDRESS: 'istiod:15012', [name]: value } });
    assert.match(issue ?? '', problem);
    assert.deepEqual(more, []);
  });
}
