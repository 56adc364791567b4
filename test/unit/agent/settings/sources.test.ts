/** Which combinations of mesh, pods and certificates make an agent, and what is said of the others. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type AgentConfig, resolveConfig } from '../../../../src/agent/settings/config.ts';
import type { Environment, Start } from '../../../../src/agent/settings/input.ts';

const NODE = { NODE_NAME: 'n1', ISTIO_META_DNS_CAPTURE: 'false' };
const CHART = {
  ...NODE,
  KUBERNETES_SERVICE_HOST: '10.96.0.1',
  XDS_ADDRESS: 'istiod.istio-system.svc:15012',
  CA_ADDRESS: 'istiod.istio-system.svc:15012',
};
const FILES = { ...NODE, LOCAL_XDS_PATH: 'mesh.yaml', CULVERT_PODS: 'pods.yaml' };

function resolve(defaults: Start['defaults'], env: Environment) {
  const args = defaults === 'ztunnel' ? ['proxy', 'ztunnel'] : ['agent'];
  return resolveConfig(env, {}, { defaults, args, readText: () => undefined });
}

/** Mesh, pods and certificates of a configuration, in three words. */
function sourcesOf({ xds, localMesh, podSource, certificateSource }: AgentConfig): string {
  const mesh = [xds === undefined ? undefined : 'xds', localMesh?.kind].filter((kind) => kind !== undefined);
  return [mesh.join('+'), podSource.kind, certificateSource.kind].join(' ');
}

interface Accepted {
  readonly claim: string;
  readonly defaults: Start['defaults'];
  readonly env: Environment;
  readonly want: string;
}

const accepted: readonly Accepted[] = [
  { claim: 'the chart of ztunnel', defaults: 'ztunnel', env: CHART, want: 'xds zds istio' },
  { claim: 'nothing but a node, in a cluster', defaults: 'ztunnel', env: NODE, want: 'xds zds istio' },
  {
    claim: 'a local file beside istiod',
    defaults: 'ztunnel',
    env: { ...CHART, LOCAL_XDS: '{}' },
    want: 'xds+inline zds istio',
  },
  {
    claim: 'fully local, as ztunnel’s developers run it',
    defaults: 'ztunnel',
    env: {
      ...NODE,
      XDS_ADDRESS: '',
      CULVERT_CA_DIR: '/ca',
      LOCAL_XDS_PATH: 'local.yaml',
      PROXY_MODE: 'dedicated',
      PROXY_WORKLOAD_INFO: 'default/local/default',
    },
    want: 'file own embedded',
  },
  { claim: 'files for everything', defaults: 'culvert', env: FILES, want: 'file file embedded' },
  {
    claim: 'a mesh file and a CNI agent',
    defaults: 'culvert',
    env: { ...FILES, CULVERT_PODS: undefined },
    want: 'file zds embedded',
  },
  {
    claim: 'a control plane and listed pods',
    defaults: 'culvert',
    env: { ...FILES, LOCAL_XDS_PATH: undefined, XDS_ADDRESS: 'https://cp:15012', CA_ADDRESS: 'https://cp:15012' },
    want: 'xds file istio',
  },
  {
    claim: 'certificates from files',
    defaults: 'ztunnel',
    env: { ...CHART, CA_ADDRESS: undefined, CULVERT_CERT_DIR: '/certs' },
    want: 'xds zds files',
  },
];

for (const { claim, defaults, env, want } of accepted) {
  test(`${claim}: ${want}`, () => {
    const result = resolve(defaults, env);
    assert(result.ok, JSON.stringify(result));
    assert.equal(sourcesOf(result.config), want);
  });
}

interface Refused {
  readonly claim: string;
  readonly defaults: Start['defaults'];
  readonly env: Environment;
  readonly setting: string;
  readonly problem: RegExp;
}

const refused: readonly Refused[] = [
  {
    claim: 'no mesh at all',
    defaults: 'culvert',
    env: { ...FILES, LOCAL_XDS_PATH: undefined },
    setting: '--mesh-file or LOCAL_XDS_PATH',
    problem: /^is required: a file .*; or set XDS_ADDRESS to a control plane$/,
  },
  {
    claim: 'no mesh at all, as ztunnel',
    defaults: 'ztunnel',
    env: { ...CHART, XDS_ADDRESS: '' },
    setting: '--mesh-file or LOCAL_XDS_PATH',
    problem: /^is required: .*; or set XDS_ADDRESS to a control plane$/,
  },
  {
    claim: 'a mesh file and the text of one',
    defaults: 'culvert',
    env: { ...FILES, LOCAL_XDS: '{}' },
    setting: 'LOCAL_XDS',
    problem: /^and a mesh file exclude each other/,
  },
  {
    claim: 'listed pods and a CNI agent',
    defaults: 'culvert',
    env: { ...FILES, INPOD_UDS: '/zds.sock' },
    setting: 'CULVERT_PODS',
    problem: /^and a socket of a CNI agent exclude each other/,
  },
  {
    claim: 'dedicated to nobody',
    defaults: 'ztunnel',
    env: { ...CHART, PROXY_MODE: 'dedicated' },
    setting: '--workload or PROXY_WORKLOAD_INFO',
    problem: /^is required: namespace\/name\/serviceAccount of the pod/,
  },
  {
    claim: 'two who certify',
    defaults: 'ztunnel',
    env: { ...CHART, CULVERT_CA_DIR: '/ca' },
    setting: 'CULVERT_CA_DIR',
    problem: /^names a second source of certificates .*unset all but one$/,
  },
  {
    claim: 'nobody who certifies',
    defaults: 'ztunnel',
    env: { ...CHART, CA_ADDRESS: '' },
    setting: 'CA_ADDRESS',
    problem: /^is empty and nothing else names a source of certificates/,
  },
];

for (const { claim, defaults, env, setting, problem } of refused) {
  test(`${claim}: refused with one sentence at ${setting}`, () => {
    const result = resolve(defaults, env);
    assert(!result.ok);
    assert.deepEqual(
      result.issues.map((issue) => issue.setting),
      [setting],
    );
    assert.match(result.issues[0]?.problem ?? '', problem);
  });
}

test('as ztunnel, state is kept beside the socket of the CNI agent, and an update takes the node over', () => {
  const result = resolve('ztunnel', { ...CHART, INPOD_UDS: '/host/zt/zds.sock' });
  assert(result.ok);
  assert.equal(result.config.runDir, '/host/zt/culvert');
  assert.equal(result.config.snapshotDir, '/host/zt/culvert/snapshot');
  assert.equal(result.config.isTakeOver, true);
  const standalone = resolve('culvert', FILES);
  assert(standalone.ok);
  assert.equal(standalone.config.runDir, '/var/run/culvert');
  assert.equal(standalone.config.isTakeOver, false);
});
