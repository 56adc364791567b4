import assert from 'node:assert/strict';
import { test } from 'node:test';
import { dnsSettings } from '../../../../src/agent/settings/dns.ts';
import { SettingsReader } from '../../../../src/agent/settings/reader.ts';

const CLUSTER = 'nameserver 10.96.0.10\n';
const RESOLVER = { nameservers: [{ ip: '10.96.0.10', port: 53 }], timeoutMs: 5_000, attempts: 2 };
const LOCALHOST = { kind: 'localhost', port: 15_053 };
const ON = { ISTIO_META_DNS_CAPTURE: 'true' };
const PODS_FILE = { CULVERT_PODS: 'pods.yaml' };

function settings(env: Readonly<Record<string, string>>, resolvConf: string | undefined = CLUSTER) {
  const readText = (path: string) => (path === '/etc/resolv.conf' ? resolvConf : undefined);
  const read = new SettingsReader(env, {}, { defaults: 'culvert', args: [], readText });
  return { ...dnsSettings(read), issues: read.issues };
}

for (const [claim, env, isOn] of [
  ['on where a CNI agent enrols pods', {}, true],
  ['off with a pods file, whose pods may have other nameservers', PODS_FILE, false],
  ['on with a pods file when asked for', { ...PODS_FILE, ...ON }, true],
  ['on for TRUE', { ISTIO_META_DNS_CAPTURE: 'TRUE' }, true],
  ['off for false', { ISTIO_META_DNS_CAPTURE: 'false' }, false],
  ['off for 1', { ISTIO_META_DNS_CAPTURE: '1' }, false],
  ['off for nothing', { ISTIO_META_DNS_CAPTURE: '' }, false],
  ['on from proxyMetadata', { ...PODS_FILE, PROXY_CONFIG: 'proxyMetadata: {ISTIO_META_DNS_CAPTURE: "true"}' }, true],
  ['off from proxyMetadata', { PROXY_CONFIG: 'proxyMetadata: {DNS_CAPTURE: "false"}' }, false],
] as const) {
  test(`the DNS proxy is ${claim}`, () => {
    const { dnsProxy, issues } = settings(env);
    assert.deepEqual(dnsProxy, isOn ? { listen: LOCALHOST, ...RESOLVER } : undefined);
    assert.deepEqual(issues, []);
  });
}

for (const [text, listen] of [
  ['localhost:15053', LOCALHOST],
  ['127.0.0.1:15053', { kind: 'address', address: { ip: '127.0.0.1', port: 15_053 } }],
  ['[::1]:15053', { kind: 'address', address: { ip: '::1', port: 15_053 } }],
] as const) {
  test(`the proxy listens at ${text}`, () => {
    assert.deepEqual(settings({ ISTIO_META_DNS_PROXY_ADDR: text }).dnsProxy?.listen, listen);
  });
}

for (const text of [
  '',
  'localhost',
  'localhost:0',
  'localhost:70000',
  'localhost:15053x',
  '15053',
  'dns:15053',
  '::1:15053',
]) {
  test(`"${text}" is no address to listen at, and the refusal names it`, () => {
    const [issue, ...others] = settings({ ISTIO_META_DNS_PROXY_ADDR: text }).issues;
    assert.equal(issue?.setting, 'ISTIO_META_DNS_PROXY_ADDR');
    assert.match(issue?.problem ?? '', /^failed to parse DNS_PROXY_ADDR: /);
    assert.ok(issue?.problem.includes(text));
    assert.deepEqual(others, []);
  });
}

test('another port than the rules in pods know is refused', () => {
  assert.match(settings({ ISTIO_META_DNS_PROXY_ADDR: 'localhost:53' }).issues[0]?.problem ?? '', /port 15053/);
});

for (const [claim, resolvConf] of [
  ['without a nameserver', 'search example.com\n'],
  ['with loopback nameservers only', 'nameserver 127.0.0.53\n'],
  ['that is not there', ''],
] as const) {
  test(`a resolv.conf ${claim} is refused with the cure, and does not matter without the proxy`, () => {
    const [issue] = settings({}, resolvConf).issues;
    assert.equal(issue?.setting, 'CULVERT_RESOLV_CONF');
    assert.match(issue?.problem ?? '', /\/etc\/resolv\.conf names no nameserver.*ISTIO_META_DNS_CAPTURE=false/);
    assert.deepEqual(settings({ ISTIO_META_DNS_CAPTURE: 'false' }, resolvConf).issues, []);
  });
}

test('the DNS proxy and on-demand discovery exclude each other', () => {
  assert.equal(settings({ XDS_ON_DEMAND: 'true' }).issues[0]?.setting, 'XDS_ON_DEMAND');
  assert.deepEqual(settings({ XDS_ON_DEMAND: 'true', ISTIO_META_DNS_CAPTURE: 'false' }).issues, []);
});

test('the preferred namespace is spelt as the reference spells it', () => {
  assert.equal(settings({ PREFERED_SERVICE_NAMESPACE: 'shared' }).preferredServiceNamespace, 'shared');
  assert.equal(settings({}).preferredServiceNamespace, undefined);
});

test('endpoints known by host name are looked up as the system says, unless a resolv.conf is named', () => {
  assert.equal(settings({}).hostNameservers, undefined);
  const named = { CULVERT_RESOLV_CONF: '/etc/resolv.conf', ISTIO_META_DNS_CAPTURE: 'false' };
  const { hostNameservers, issues } = settings(named, 'nameserver 127.0.0.53\nnameserver fd00::53\n');
  assert.deepEqual(hostNameservers, [
    { ip: '127.0.0.53', port: 53 },
    { ip: 'fd00::53', port: 53 },
  ]);
  assert.deepEqual(issues, []);
});
