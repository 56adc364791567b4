import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type AgentConfig, resolveConfig } from '../../../../src/agent/settings/config.ts';
import type { ConfigIssue, Environment, Start } from '../../../../src/agent/settings/input.ts';

const minimal = { NODE_NAME: 'n1', LOCAL_XDS_PATH: 'mesh.yaml', CULVERT_PODS: 'pods.yaml' };

/** As started by the image of ztunnel, with Istio's mesh configuration mounted. */
function started(meshConfig: string | undefined): Start {
  return {
    defaults: 'ztunnel',
    args: ['proxy', 'ztunnel'],
    readText: (path) => (path === './etc/istio/config/mesh' ? meshConfig : undefined),
  };
}

function resolved(env: Environment, meshConfig?: string, flags: Environment = {}): AgentConfig {
  const result = resolveConfig({ ...minimal, ...env }, flags, started(meshConfig));
  return result.ok ? result.config : assert.fail(JSON.stringify(result.issues));
}

function refused(env: Environment, meshConfig?: string): readonly ConfigIssue[] {
  const result = resolveConfig({ ...minimal, ...env }, {}, started(meshConfig));
  return result.ok ? assert.fail('accepted') : result.issues;
}

const MESH = `
trustDomain: td.example
defaultConfig:
  statsPort: 15888
  proxyAdminPort: 15099
  concurrency: 3
  discoveryAddress: istiod-rev0.istio-system-2:15012
  proxyMetadata:
    ISTIO_META_FOO: from-file
    ISTIO_META_BAR: from-file
    NO_PREFIX: kept
`;

test('the mesh file gives ports and metadata', () => {
  const config = resolved({}, MESH);
  assert.equal(config.statsPort, 15_888);
  assert.equal(config.adminPort, 15_099);
  assert.deepEqual(config.metadata, { FOO: 'from-file', BAR: 'from-file', NO_PREFIX: 'kept' });
});

test('PROXY_CONFIG wins over the mesh file key by key, ISTIO_META_ variables over its metadata, and flags over all', () => {
  const env = {
    PROXY_CONFIG: '{"proxyAdminPort": 15999, "proxyMetadata": {"ISTIO_META_FOO": "from-env", "ISTIO_META_BAZ": true}}',
    ISTIO_META_BAZ: 'from-variable',
    NOT_INCLUDE: 'not-metadata',
  };
  const config = resolved(env, MESH);
  assert.deepEqual([config.adminPort, config.statsPort], [15_999, 15_888]);
  assert.deepEqual(config.metadata, { FOO: 'from-env', BAR: 'from-file', BAZ: 'from-variable', NO_PREFIX: 'kept' });
  assert.equal(resolved(env, MESH, { 'admin-port': '15001' }).adminPort, 15_001);
});

test('a cluster named in ISTIO_META_CLUSTER_ID, by variable or metadata, wins over CLUSTER_ID', () => {
  assert.equal(resolved({ CLUSTER_ID: 'plain' }).clusterId, 'plain');
  assert.equal(resolved({ CLUSTER_ID: 'plain', ISTIO_META_CLUSTER_ID: 'meta' }).clusterId, 'meta');
  const fromConfig = { CLUSTER_ID: 'plain', PROXY_CONFIG: 'proxyMetadata: {ISTIO_META_CLUSTER_ID: config}' };
  assert.equal(resolved(fromConfig).clusterId, 'config');
});

test('a document without proxyMetadata, with unknown keys, or empty is fine', () => {
  assert.deepEqual(resolved({ PROXY_CONFIG: 'tracing: {zipkin: {}}\nproxyMetadata:' }, '').metadata, {});
});

test('what is wrong in a document is said under the name of the document or of the key', () => {
  const documents = refused({ PROXY_CONFIG: 'proxyMetadata: [a]' }, 'defaultConfig: {proxyAdminPort: [1]}');
  assert.deepEqual(
    documents.map(({ setting, problem }) => `${setting} ${problem}`),
    [
      './etc/istio/config/mesh cannot be used: proxyAdminPort must be one value',
      'PROXY_CONFIG cannot be used: proxyMetadata must be a YAML mapping',
    ],
  );
  const [port] = refused({ PROXY_CONFIG: 'proxyAdminPort: 99999' });
  assert.equal(port?.setting, 'ProxyConfig proxyAdminPort');
  const [broken] = refused({ PROXY_CONFIG: 'a: [' });
  assert.equal(broken?.setting, 'PROXY_CONFIG');
});

test('a mesh file that cannot be read refuses the start', () => {
  const start: Start = {
    ...started(undefined),
    readText: () => {
      throw new Error('EACCES: permission denied');
    },
  };
  const result = resolveConfig(minimal, {}, start);
  assert(!result.ok);
  assert.deepEqual(result.issues, [
    { setting: './etc/istio/config/mesh', problem: 'cannot be used: EACCES: permission denied' },
  ]);
});
