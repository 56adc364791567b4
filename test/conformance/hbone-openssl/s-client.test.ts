/** OpenSSL's s_client, which nobody here wrote, against port 15008 of a captured pod: which TLS it speaks, and with whom. */
import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TlsMaterial } from '../../../src/model/verdict.ts';
import { meshCa } from '../../support/certs.ts';
import { identityOf, meshForFile } from '../../support/mesh.ts';
import { meshMaterial } from '../../support/mesh-hbone.ts';
import { skipWithoutRoot } from '../../support/netns.ts';

const privileged = { skip: skipWithoutRoot, timeout: 60_000 };
const mesh = meshForFile({ nodes: { n2: ['server'], n3: ['outside'] } });
const CLIENT_AUTH = '1.3.6.1.5.5.7.3.2';
const SERVER_AUTH = '1.3.6.1.5.5.7.3.1';
const H2 = ['-brief', '-tls1_3', '-alpn', 'h2'];
/** Preface and an empty SETTINGS frame: what makes an accepted session answer. */
const HELLO = Buffer.concat([
  Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'),
  Buffer.from('000000040000000000', 'hex'),
]);
/** Length 30, type SETTINGS: the first frame of our server. */
const SERVER_SETTINGS = Buffer.from('00001e04', 'hex');

interface Answer {
  /** The server spoke HTTP/2: it took us in. */
  readonly isServed: boolean;
  /** What s_client reported. */
  readonly report: string;
  /** Certificates of the server, when asked for with -showcerts. */
  readonly certificates: readonly X509Certificate[];
}

function certificatesIn(text: string): X509Certificate[] {
  const pems = text.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
  return pems.map((pem) => new X509Certificate(pem));
}

let files = 0;

/** Runs s_client in the pod outside the mesh until it ends, or until the server has spoken HTTP/2. */
async function sClient(material: TlsMaterial | undefined, args: readonly string[]): Promise<Answer> {
  files += 1;
  const file = (name: string, text: string): string => {
    const path = join(mesh().lab.folder, `s-client-${files}-${name}.pem`);
    writeFileSync(path, text, { mode: 0o600 });
    return path;
  };
  const identity =
    material === undefined
      ? []
      : [
          '-key',
          file('key', material.keyPem),
          '-cert',
          file('chain', material.chainPem),
          '-cert_chain',
          file('chain', material.chainPem),
        ];
  const argv = ['openssl', 's_client', '-connect', `${mesh().pod('server').ip}:15008`, '-ign_eof'];
  const child = mesh()
    .pod('outside')
    .inside.spawn([...argv, ...identity, ...args], { stdio: 'pipe' });
  const { promise, resolve } = Promise.withResolvers<Answer>();
  const [said, report]: [Buffer[], Buffer[]] = [[], []];
  const answer = (): Answer => ({
    certificates: certificatesIn(Buffer.concat(said).toString()),
    isServed: Buffer.concat(said).includes(SERVER_SETTINGS),
    report: Buffer.concat(report).toString(),
  });
  child.stdin?.on('error', () => {});
  child.stdin?.write(HELLO);
  child.stdout?.on('data', (chunk: Buffer) => {
    said.push(chunk);
    if (answer().isServed) child.kill('SIGKILL');
  });
  child.stderr?.on('data', (chunk: Buffer) => report.push(chunk));
  child.on('close', () => resolve(answer()));
  return promise;
}

function peer(
  identity = identityOf('client'),
  overrides: Parameters<typeof meshMaterial>[2] = {},
): Promise<TlsMaterial> {
  return meshMaterial(mesh(), identity, overrides);
}

/** The first refusal that the agent logged from line `mark` on. */
async function refusalFrom(mark: number) {
  const line = await mesh()
    .agent('n2')
    .line(({ message }) => message === 'connection failed', 'refused handshake', mark);
  return { reason: line['reason'], error: String(line['error']) };
}

test('a mesh certificate over TLS 1.3 with ALPN h2 is served, with AES-256-GCM first', privileged, async () => {
  const { isServed, report } = await sClient(await peer(), H2);
  assert.equal(isServed, true, report);
  assert.match(report, /Protocol version: TLSv1\.3/);
  assert.match(report, /Ciphersuite: TLS_AES_256_GCM_SHA384/);
});

for (const group of ['X25519', 'P-256', 'P-384']) {
  test(`key exchange over ${group} is served`, privileged, async () => {
    const { isServed, report } = await sClient(await peer(), [...H2, '-groups', group]);
    assert.equal(isServed, true, report);
  });
}

test('AES-128-GCM alone is served, ChaCha20 alone is not', privileged, async () => {
  const small = await sClient(await peer(), [...H2, '-ciphersuites', 'TLS_AES_128_GCM_SHA256']);
  assert.equal(small.isServed, true, small.report);
  const chacha = await sClient(await peer(), [...H2, '-ciphersuites', 'TLS_CHACHA20_POLY1305_SHA256']);
  assert.equal(chacha.isServed, false);
  assert.match(chacha.report, /handshake failure/);
});

test('a server name in the handshake changes nothing', privileged, async () => {
  const { isServed, report } = await sClient(await peer(), [...H2, '-servername', 'elsewhere.example']);
  assert.equal(isServed, true, report);
});

test(
  'the pod proves itself with a P-256 leaf that has its SPIFFE URI alone, and its issuer, not the root',
  privileged,
  async () => {
    const { certificates, report } = await sClient(await peer(), ['-showcerts', '-tls1_3', '-alpn', 'h2']);
    assert.equal(certificates.length, 2, report);
    const [leaf, issuer] = certificates;
    assert.ok(leaf !== undefined && issuer !== undefined);
    assert.equal(leaf.subjectAltName, `URI:${identityOf('server')}`);
    assert.equal(leaf.subject, undefined);
    assert.equal(leaf.publicKey.asymmetricKeyDetails?.namedCurve, 'prime256v1');
    assert.ok(leaf.verify(issuer.publicKey));
    assert.equal(issuer.verify(issuer.publicKey), false, 'the root was sent');
  },
);

for (const [claim, material, args, reason, error, alert] of [
  [
    'no client certificate',
    async () => undefined,
    H2,
    'CV-PEER-CERT',
    /did not present a certificate/,
    /certificate required/,
  ],
  [
    'a certificate of another trust domain',
    () => peer('spiffe://elsewhere.local/ns/demo/sa/client'),
    H2,
    'CV-PEER-TRUST-DOMAIN',
    /expected trust domain \(cluster\.local\), got spiffe:\/\/elsewhere\.local/,
    undefined,
  ],
  [
    'an expired certificate',
    () => peer(undefined, { notBeforeMs: Date.now() - 7_200_000, notAfterMs: Date.now() - 3_600_000 }),
    H2,
    'CV-PEER-CERT',
    /has expired/,
    undefined,
  ],
  [
    'a certificate that is not valid yet',
    () => peer(undefined, { notBeforeMs: Date.now() + 3_600_000, notAfterMs: Date.now() + 7_200_000 }),
    H2,
    'CV-PEER-CERT',
    /not valid yet/,
    undefined,
  ],
  [
    'a certificate of another CA',
    async () => (await meshCa('other')).material(identityOf('client')),
    H2,
    'CV-PEER-CERT',
    /not signed by a trusted root/,
    undefined,
  ],
  [
    'a certificate for servers only',
    () => peer(undefined, { extendedKeyUsages: [SERVER_AUTH] }),
    H2,
    'CV-PEER-CERT',
    /does not allow this use/,
    undefined,
  ],
  [
    'TLS 1.2',
    () => peer(),
    ['-brief', '-tls1_2', '-alpn', 'h2'],
    'CV-TLS-HANDSHAKE',
    /unsupported protocol/,
    /protocol version/,
  ],
  [
    'another ALPN',
    () => peer(),
    ['-brief', '-tls1_3', '-alpn', 'http/1.1'],
    'CV-TLS-HANDSHAKE',
    /no application protocol|ALPN/,
    /no application protocol/,
  ],
  ['no ALPN', () => peer(), ['-brief', '-tls1_3'], 'CV-TLS-HANDSHAKE', /ALPN/, undefined],
] as const) {
  test(`${claim}: refused, and the log says why`, privileged, async () => {
    const mark = mesh().agent('n2').lines.length;
    const { isServed, report } = await sClient(await material(), args);
    assert.equal(isServed, false, report);
    if (alert !== undefined) assert.match(report, alert);
    const refusal = await refusalFrom(mark);
    assert.equal(refusal.reason, reason);
    assert.match(refusal.error, error);
  });
}

test('a certificate for clients only is enough for a client', privileged, async () => {
  const { isServed, report } = await sClient(await peer(undefined, { extendedKeyUsages: [CLIENT_AUTH] }), H2);
  assert.equal(isServed, true, report);
});

test('a certificate without key usages is enough for a client', privileged, async () => {
  const { isServed, report } = await sClient(await peer(undefined, { extendedKeyUsages: [] }), H2);
  assert.equal(isServed, true, report);
});
