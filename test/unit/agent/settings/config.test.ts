import assert from 'node:assert/strict';
import { test } from 'node:test';
import { resolveConfig } from '../../../../src/agent/settings/config.ts';
import { parseDurationMs } from '../../../../src/agent/settings/reader.ts';

const minimal = { NODE_NAME: 'n1', LOCAL_XDS_PATH: 'mesh.yaml', CULVERT_PODS: 'pods.yaml' };

test('defaults fill what is not set', () => {
  const result = resolveConfig(minimal, {});
  assert(result.ok);
  assert.equal(result.config.packetMark, 0x539);
  assert.equal(result.config.drainGraceMs, 5_000);
  assert.deepEqual(result.config.keepalive, { idleMs: 180_000, intervalMs: 180_000, probes: 9 });
});

test('every bad setting is reported at once, under the name it was given', () => {
  const result = resolveConfig(
    { IPV6_ENABLED: 'yes', KEEPALIVE_TIME: 'soon', PACKET_MARK: '' },
    { 'admin-port': '70000' },
  );
  assert(!result.ok);
  assert.deepEqual(result.issues.map((issue) => issue.setting).sort(), [
    '--admin-port',
    '--mesh-file or LOCAL_XDS_PATH',
    '--node or NODE_NAME',
    'CULVERT_RESOLV_CONF',
    'IPV6_ENABLED',
    'KEEPALIVE_TIME',
    'PACKET_MARK',
  ]);
});

test('a flag wins over a variable', () => {
  const result = resolveConfig(minimal, { node: 'n2' });
  assert(result.ok);
  assert.equal(result.config.nodeName, 'n2');
});

for (const [grace, wantMs] of [
  ['30', 25_000],
  ['10', 9_000],
  ['1', 1_000],
  ['0', 5_000],
  ['604800', 604_795_000],
] as const) {
  test(`a termination grace of ${grace} s drains for ${wantMs} ms`, () => {
    const result = resolveConfig({ ...minimal, TERMINATION_GRACE_PERIOD_SECONDS: grace }, {});
    assert(result.ok);
    assert.equal(result.config.drainGraceMs, wantMs);
  });
}

for (const [setting, text] of [
  ['CULVERT_IDLE_TIMEOUT', '30d'],
  ['CULVERT_IDLE_TIMEOUT', '0'],
  ['CULVERT_VERIFY_PERIOD', '0s'],
  ['POOL_UNUSED_RELEASE_TIMEOUT', '0'],
  ['KEEPALIVE_TIME', '12h'],
  ['KEEPALIVE_INTERVAL', '100ms'],
  ['CONNECTION_TERMINATION_DEADLINE', '5w'],
  ['SECRET_TTL', '0'],
  ['PACKET_MARK', '1338'],
  ['COMPLIANCE_POLICY', 'fips-140-2'],
  ['TLS12_ENABLED', ''],
  ['RUST_LOG', 'access=loud'],
] as const) {
  test(`${setting}=${text} is refused, for the agent could not do what it says`, () => {
    const result = resolveConfig({ ...minimal, [setting]: text }, {});
    assert(!result.ok);
    assert.equal(result.issues.length, 1);
    assert.match(result.issues[0]?.problem ?? '', /^must be /);
  });
}

for (const [text, wantMs] of [
  ['30', 30_000],
  ['1m30s', 90_000],
  ['250ms', 250],
  ['1h', 3_600_000],
  ['', undefined],
  ['5 s', undefined],
  ['-1s', undefined],
  ['1.5s', undefined],
] as const) {
  test(`the duration "${text}" is ${wantMs ?? 'refused'}`, () => assert.equal(parseDurationMs(text), wantMs));
}

test('a mesh can be given as text, which excludes a file of it', () => {
  const inline = resolveConfig({ NODE_NAME: 'n1', CULVERT_PODS: 'pods.yaml', LOCAL_XDS: 'workloads: []' }, {});
  assert(inline.ok);
  assert.deepEqual(inline.config.localMesh, { kind: 'inline', name: 'LOCAL_XDS', text: 'workloads: []' });
  const both = resolveConfig({ ...minimal, LOCAL_XDS: 'workloads: []' }, {});
  assert(!both.ok);
  assert.deepEqual(
    both.issues.map((issue) => issue.setting),
    ['LOCAL_XDS'],
  );
});

test('pods come from a CNI agent unless files list them; both at once is a mistake', () => {
  const { CULVERT_PODS: _, ...rest } = minimal;
  const sourceOf = (env: Record<string, string>) => {
    const result = resolveConfig({ ...rest, ISTIO_META_DNS_CAPTURE: 'false', ...env }, {});
    return result.ok ? result.config.podSource : result.issues.map(({ setting }) => setting);
  };
  assert.deepEqual(sourceOf({}), { kind: 'zds', socket: '/var/run/ztunnel/ztunnel.sock' });
  assert.deepEqual(sourceOf({ INPOD_UDS: '/run/z.sock' }), { kind: 'zds', socket: '/run/z.sock' });
  assert.deepEqual(sourceOf({ CULVERT_PODS: 'pods' }), { kind: 'file', path: 'pods' });
  assert.deepEqual(sourceOf({ CULVERT_PODS: 'pods', INPOD_UDS: '/run/z.sock' }), ['CULVERT_PODS']);
  assert.deepEqual(sourceOf({ INPOD_UDS: `/run/${'x'.repeat(103)}` }), ['INPOD_UDS']);
});
