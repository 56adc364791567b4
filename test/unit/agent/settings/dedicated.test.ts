import assert from 'node:assert/strict';
import { test } from 'node:test';
import { configSection } from '../../../../src/agent/admin/config-dump-settings.ts';
import { authoritySettings, proxySettings } from '../../../../src/agent/proxy-settings.ts';
import { resolveConfig } from '../../../../src/agent/settings/config.ts';
import type { Environment } from '../../../../src/agent/settings/input.ts';

const DEDICATED = { PROXY_MODE: 'dedicated', PROXY_WORKLOAD_INFO: 'shop/web-0/web', LOCAL_XDS_PATH: 'mesh.yaml' };
const OWN = { namespace: 'shop', name: 'web-0', serviceAccount: 'web' };

function started(env: Environment, defaults: 'culvert' | 'ztunnel' = 'culvert') {
  const readText = (path: string) => (path === '/etc/resolv.conf' ? 'nameserver 10.96.0.10\n' : undefined);
  const result = resolveConfig(env, {}, { defaults, args: [], readText });
  assert(result.ok, JSON.stringify(result));
  return result.config;
}

test('a pod of its own needs neither node nor pods file; it redirects, and marks what it carries', () => {
  const config = started(DEDICATED);
  assert.deepEqual(config.podSource, { kind: 'own', ...OWN, redirection: 'own' });
  assert.equal(config.nodeName, '');
  assert.equal(config.runDir, '/var/run/culvert-shop-web-0');
  assert.equal(proxySettings(config).mark, 0x539);
  assert.equal(authoritySettings(config).isOrigSrcEnabled, true);
});

test('in the environment of ztunnel somebody else redirects: no mark, and no borrowed address without a way back', () => {
  const config = started({ ...DEDICATED, CULVERT_CA_DIR: '/ca' }, 'ztunnel');
  assert.deepEqual(config.podSource, { kind: 'own', ...OWN, redirection: 'none' });
  assert.equal(proxySettings(config).mark, undefined);
  assert.equal(authoritySettings(config).isOrigSrcEnabled, false);
});

test('whoever redirects otherwise may want a mark and the addresses of clients all the same', () => {
  const config = started({ ...DEDICATED, CULVERT_REDIRECT: 'none', PACKET_MARK: '7', ENABLE_ORIG_SRC: 'true' });
  assert.equal(proxySettings(config).mark, 7);
  assert.equal(authoritySettings(config).isOrigSrcEnabled, true);
});

test('the dump names the mode and the pod, as ztunnel does', () => {
  const { proxyMode, proxyWorkloadInformation } = configSection(started(DEDICATED)) as Record<string, unknown>;
  assert.deepEqual([proxyMode, proxyWorkloadInformation], ['Dedicated', OWN]);
});

for (const [name, env, setting] of [
  ['an unknown mode', { PROXY_MODE: 'solo' }, 'PROXY_MODE'],
  ['no pod', { PROXY_WORKLOAD_INFO: undefined }, '--workload or PROXY_WORKLOAD_INFO'],
  ['half a pod', { PROXY_WORKLOAD_INFO: 'shop/web-0' }, 'PROXY_WORKLOAD_INFO'],
  ['more than a pod', { PROXY_WORKLOAD_INFO: 'shop/web-0/web/x' }, 'PROXY_WORKLOAD_INFO'],
  ['a pod that no identity could name', { PROXY_WORKLOAD_INFO: 'shop/web 0/web' }, 'PROXY_WORKLOAD_INFO'],
  ['nobody who redirects', { CULVERT_REDIRECT: 'somebody' }, 'CULVERT_REDIRECT'],
  ['a mark that our own rules do not know', { PACKET_MARK: '7' }, 'PACKET_MARK'],
] as const) {
  test(`dedicated mode with ${name} is refused`, () => {
    const minimal = { NODE_NAME: 'n', CULVERT_PODS: 'p', ...DEDICATED, ...env };
    const result = resolveConfig(minimal, {});
    assert(!result.ok);
    assert.deepEqual(
      result.issues.map((issue) => issue.setting),
      [setting],
    );
  });
}
