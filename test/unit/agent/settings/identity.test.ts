import assert from 'node:assert/strict';
import { test } from 'node:test';
import { identitySettings } from '../../../../src/agent/settings/identity.ts';
import type { Environment, Start } from '../../../../src/agent/settings/input.ts';
import { SettingsReader } from '../../../../src/agent/settings/reader.ts';

const TOKEN = './var/run/secrets/tokens/istio-token';

interface Case {
  readonly env?: Environment;
  readonly flags?: Environment;
  readonly defaults?: Start['defaults'];
  /** Files that exist. */
  readonly files?: readonly string[];
}

function read({ env = {}, flags = {}, defaults = 'culvert', files = [] }: Case) {
  const readText = (path: string): string | undefined => (files.includes(path) ? 'x' : undefined);
  const reader = new SettingsReader(env, flags, { defaults, args: [], readText });
  const settings = identitySettings(reader);
  return { settings, issues: reader.issues.map(({ setting, problem }) => `${setting} ${problem}`) };
}

function istio(given: Case) {
  const { settings, issues } = read(given);
  assert.deepEqual(issues, []);
  assert(settings.certificateSource.kind === 'istio');
  return settings.certificateSource.server;
}

const sources: readonly (readonly [claim: string, given: Case, want: unknown])[] = [
  ['nothing said: the embedded CA', {}, { kind: 'embedded', dir: '/var/lib/culvert/ca' }],
  ['a directory of it', { env: { CULVERT_CA_DIR: '/ca' } }, { kind: 'embedded', dir: '/ca' }],
  ['files, by flag', { flags: { 'cert-dir': '/certs' } }, { kind: 'files', dir: '/certs' }],
  ['files, by variable', { env: { CULVERT_CERT_DIR: '/certs' } }, { kind: 'files', dir: '/certs' }],
  [
    'the Workload API',
    { env: { SPIFFE_ENDPOINT_SOCKET: 'unix:///run/spire/agent.sock' } },
    { kind: 'workload-api', address: { kind: 'unix', path: '/run/spire/agent.sock' } },
  ],
  ['CA_ADDRESS empty is no source', { env: { CA_ADDRESS: '' } }, { kind: 'embedded', dir: '/var/lib/culvert/ca' }],
];
for (const [claim, given, want] of sources) {
  test(`certificate source: ${claim}`, () => {
    const { settings, issues } = read(given);
    assert.deepEqual([settings.certificateSource, issues], [want, []]);
  });
}

test('CA_ADDRESS names Istio’s CA; a missing scheme is https', () => {
  assert.deepEqual(istio({ env: { CA_ADDRESS: 'istiod-blue.istio-system.svc:15012' } }).address, {
    kind: 'tls',
    host: 'istiod-blue.istio-system.svc',
    port: 15_012,
  });
});

test('started as ztunnel, the CA is at istiod, in Kubernetes and outside', () => {
  const inside = istio({ defaults: 'ztunnel', env: { KUBERNETES_SERVICE_HOST: '10.96.0.1' } });
  const outside = istio({ defaults: 'ztunnel' });

  assert.deepEqual(inside.address, { kind: 'tls', host: 'istiod.istio-system.svc', port: 15_012 });
  assert.deepEqual(outside.address, { kind: 'tls', host: 'localhost', port: 15_012 });
  assert.deepEqual(outside.roots, { kind: 'file', path: './var/run/secrets/istio/root-cert.pem' });
  assert.equal(outside.altHostname, undefined);
});

test('an agent that a control plane configures takes its certificates from there, unless another source is named', () => {
  const env = { XDS_ADDRESS: 'https://control.test:15012' };
  assert.deepEqual(istio({ env }).address, { kind: 'tls', host: 'control.test', port: 15_012 });
  const { settings, issues } = read({ env, flags: { 'ca-dir': '/ca' } });
  assert.deepEqual([settings.certificateSource, issues], [{ kind: 'embedded', dir: '/ca' }, []]);
});

test('everything about the CA can be said', () => {
  const server = istio({
    env: {
      CA_ADDRESS: 'https://ca.test:443',
      CA_ROOT_CA: 'SYSTEM',
      ALT_CA_HOSTNAME: 'istiod.test',
      AUTH_TOKEN: 'literal.token',
      CA_HEADER_X_Tenant: 'blue',
      'CA_HEADER_x-more': '',
    },
  });

  assert.deepEqual(server.roots, { kind: 'system' });
  assert.equal(server.altHostname, 'istiod.test');
  assert.deepEqual(server.token, { kind: 'literal', token: 'literal.token' });
  assert.deepEqual(
    [...server.headers],
    [
      ['x_tenant', 'blue'],
      ['x-more', ''],
    ],
  );
});

test('the token is the file of the chart when it is there, a named file, or none', () => {
  const env = { CA_ADDRESS: 'ca:1' };
  assert.deepEqual(istio({ env, files: [TOKEN] }).token, { kind: 'file', path: TOKEN });
  assert.deepEqual(istio({ env: { ...env, AUTH_TOKEN: '/t' }, files: ['/t'] }).token, { kind: 'file', path: '/t' });
  assert.deepEqual(istio({ env }).token, { kind: 'none' });
});

test('a token file that cannot be read now is still a file', () => {
  const start: Start = {
    defaults: 'culvert',
    args: [],
    readText: () => {
      throw new Error('EACCES');
    },
  };
  const reader = new SettingsReader({ CA_ADDRESS: 'ca:1', AUTH_TOKEN: '/t' }, {}, start);
  const { certificateSource } = identitySettings(reader);

  assert(certificateSource.kind === 'istio');
  assert.deepEqual(certificateSource.server.token, { kind: 'file', path: '/t' });
});

const mistakes: readonly (readonly [claim: string, given: Case, problems: readonly RegExp[]])[] = [
  [
    'two sources',
    { env: { CA_ADDRESS: 'ca:1', SPIFFE_ENDPOINT_SOCKET: 'unix:///s' } },
    [
      /^SPIFFE_ENDPOINT_SOCKET names a second source of certificates \(CA_ADDRESS .* and SPIFFE_ENDPOINT_SOCKET .*\); unset all but one$/,
    ],
  ],
  [
    'three sources',
    { env: { CA_ADDRESS: 'ca:1', CULVERT_CERT_DIR: '/c' }, flags: { 'ca-dir': '/ca' } },
    [/^CULVERT_CERT_DIR names a second source .*CA_ADDRESS.*CULVERT_CERT_DIR.*CULVERT_CA_DIR/],
  ],
  [
    'a Workload API over TCP',
    { env: { SPIFFE_ENDPOINT_SOCKET: 'tcp://127.0.0.1:8000' } },
    [/^SPIFFE_ENDPOINT_SOCKET must be a unix socket/],
  ],
  ['a Workload API over TLS', { env: { SPIFFE_ENDPOINT_SOCKET: 'https://a:1' } }, [/must be a unix socket/]],
  ['a CA in clear', { env: { CA_ADDRESS: 'http://ca:1' } }, [/^CA_ADDRESS cannot be used: .*in clear/]],
  [
    'no CA at all, with a control plane',
    { env: { XDS_ADDRESS: 'control.test:15012', CA_ADDRESS: '' } },
    [/^CA_ADDRESS is empty and nothing else/],
  ],
  [
    'no CA at all, as ztunnel',
    { defaults: 'ztunnel', env: { CA_ADDRESS: '' } },
    [/^CA_ADDRESS is empty and nothing else/],
  ],
  [
    'headers that gRPC would refuse',
    {
      env: {
        CA_ADDRESS: 'ca:1',
        'CA_HEADER_a b': '1',
        'CA_HEADER_grpc-x': '1',
        'CA_HEADER_x-bin': '1',
        CA_HEADER_y: 'ü',
      },
    },
    [
      /^CA_HEADER_a b is not a header name/,
      /^CA_HEADER_grpc-x is reserved/,
      /^CA_HEADER_x-bin is reserved/,
      /^CA_HEADER_y must/,
    ],
  ],
  ['a lifetime of nothing', { env: { SECRET_TTL: '0s' } }, [/^SECRET_TTL must be a duration/]],
];
for (const [claim, given, problems] of mistakes) {
  test(`refused: ${claim}`, () => {
    const { issues } = read(given);
    assert.equal(issues.length, problems.length, issues.join('\n'));
    for (const [i, problem] of problems.entries()) assert.match(issues[i] ?? '', problem);
  });
}
