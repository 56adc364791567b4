import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { MeshError } from '../../../src/base/errors.ts';
import { createCsr } from '../../../src/identity/csr.ts';
import { generateKeyPair } from '../../../src/identity/keys.ts';
import { certificatePems, pemBlocks } from '../../../src/identity/pem.ts';
import { RpcChannel } from '../../../src/rpc/channel.ts';
import { systemClock } from '../../../src/sys/system-clock.ts';
import { IstioCertificateRequestSchema, IstioCertificateService } from '../../../src/wire/pb/citadel_pb.ts';
import { readCertificate } from '../../../src/wire/x509-san.ts';
import { AGENT_TOKEN, CaServer, type CaServerOptions } from '../../support/ca-server.ts';
import { FakeClock } from '../../support/fake-clock.ts';

const AGENT = 'spiffe://cluster.local/ns/istio-system/sa/ztunnel';
const CART = 'spiffe://cluster.local/ns/shop/sa/cart';
const DAY_S = 86_400;
const keys = await generateKeyPair();
const folder = mkdtempSync(join(tmpdir(), 'culvert-ca-service-'));
after(() => rmSync(folder, { recursive: true }));

/** A server on a unix socket: who calls is told by the token alone. */
async function serve(options: Partial<CaServerOptions> = {}) {
  const path = join(folder, `${process.hrtime.bigint()}.sock`);
  const server = await CaServer.start({ listen: { kind: 'unix', path }, ...options });
  const ask = async (
    request: MessageInitShape<typeof IstioCertificateRequestSchema>,
    token: string | undefined = AGENT_TOKEN,
  ): Promise<readonly string[]> => {
    using channel = new RpcChannel(
      {
        address: { kind: 'unix', path },
        name: 'CA',
        failureCode: 'CV-CA',
        tls: { roots: { kind: 'system' } },
        credentials: { token: token === '' ? { kind: 'none' } : { kind: 'literal', token }, headers: new Map() },
      },
      { clock: systemClock, files: { read: () => Buffer.of() } },
    );
    const limits = { timeoutMs: 20_000, signal: new AbortController().signal };
    const message = create(IstioCertificateRequestSchema, request);
    return (await channel.unary(IstioCertificateService.method.createCertificate, message, limits)).certChain;
  };
  return { server, ask, [Symbol.asyncDispose]: () => server[Symbol.asyncDispose]() };
}

const impersonating = (identity: string) => ({ metadata: { ImpersonatedIdentity: identity } });
const factsOf = (pem: string | undefined) => readCertificate(pemBlocks('CERTIFICATE', pem ?? '')[0] ?? Buffer.of());

async function statusOf(call: Promise<unknown>): Promise<{ status: unknown; text: string }> {
  const error = await call.then(
    () => assert.fail('the call succeeded'),
    (caught: unknown) => caught,
  );
  assert(error instanceof MeshError);
  return { status: error.fields['rpcStatus'], text: error.message };
}

test('a caller without impersonation gets its own identity, whatever its request names', async () => {
  await using ca = await serve();
  const chain = await ca.ask({ csr: createCsr(CART, keys), validityDuration: 3_600n });

  assert.deepEqual(factsOf(chain[0]).uriSans, [AGENT]);
  assert.deepEqual(ca.server.outcomes, ['issued']);
});

test('a node agent gets the identity of a pod: leaf, issuing certificate, and all roots in one element', async () => {
  await using ca = await serve();
  const nowMs = Date.now();
  const chain = await ca.ask({ csr: createCsr(CART, keys), validityDuration: 3_600n, ...impersonating(CART) });
  const leaf = factsOf(chain[0]);

  assert.equal(chain.length, 3);
  assert.deepEqual(leaf.uriSans, [CART]);
  assert(Math.abs(leaf.notAfterMs - (nowMs + 3_600_000)) < 60_000);
  assert(Math.abs(leaf.notBeforeMs - (nowMs - 120_000)) < 60_000);
  assert.deepEqual(certificatePems(chain[2] ?? ''), ca.server.ca.rootsPem);
  writeFileSync(join(folder, 'leaf.pem'), chain[0] ?? '');
  writeFileSync(join(folder, 'between.pem'), chain[1] ?? '');
  writeFileSync(join(folder, 'root.pem'), chain[2] ?? '');
  const files = ['-CAfile', 'root.pem', '-untrusted', 'between.pem', 'leaf.pem'];
  const verdict = execFileSync('openssl', ['verify', '-x509_strict', ...files], { cwd: folder, encoding: 'utf8' });
  assert.match(verdict, /OK/);
});

test('openssl sees the usages of an RSA key, a common name, and a name that is then not critical', async () => {
  await using ca = await serve();
  const csr = execFileSync(
    'openssl',
    ['req', '-new', '-newkey', 'rsa:2048', '-nodes', '-keyout', '/dev/null', '-subj', '/O=me/CN=cart.shop'],
    { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] },
  );
  const [leaf = ''] = await ca.ask({ csr, ...impersonating(CART) });
  const text = execFileSync('openssl', ['x509', '-noout', '-text'], { input: leaf, encoding: 'utf8' });

  assert.match(text, /Subject: CN = cart\.shop\n/);
  assert.match(text, /Key Usage: critical\n +Digital Signature, Key Encipherment\n/);
  assert.match(text, /TLS Web Server Authentication, TLS Web Client Authentication/);
  assert.match(text, /Basic Constraints: critical\n +CA:FALSE/);
  assert.match(text, new RegExp(`Subject Alternative Name: ?\\n +URI:${CART}\\n`));
});

for (const [claim, seconds, wantSeconds] of [
  ['no lifetime is a day', 0n, DAY_S],
  ['a negative lifetime is a day', -5n, DAY_S],
  ['90 days are granted', BigInt(90 * DAY_S), 90 * DAY_S],
] as const) {
  test(claim, async () => {
    await using ca = await serve();
    const [leaf] = await ca.ask({ csr: createCsr(CART, keys), validityDuration: seconds });
    assert(Math.abs(factsOf(leaf).notAfterMs - (Date.now() + wantSeconds * 1_000)) < 60_000);
  });
}

test('a lifetime over 90 days is refused with the bound', async () => {
  await using ca = await serve();
  const { status, text } = await statusOf(
    ca.ask({ csr: createCsr(CART, keys), validityDuration: BigInt(90 * DAY_S + 1) }),
  );

  assert.equal(status, 'INVALID_ARGUMENT');
  assert.match(text, /a lifetime of 7776001 s is over 7776000 s/);
});

test('a request that its sender did not sign is refused, after the sender was known', async () => {
  await using ca = await serve();
  const other = await generateKeyPair();
  const csr = createCsr(CART, { publicKey: keys.publicKey, privateKey: other.privateKey });

  assert.equal((await statusOf(ca.ask({ csr }))).status, 'INVALID_ARGUMENT');
  assert.equal((await statusOf(ca.ask({ csr: 'rubbish' }))).status, 'INVALID_ARGUMENT');
  assert.equal((await statusOf(ca.ask({ csr }, 'wrong'))).status, 'UNAUTHENTICATED');
  assert.deepEqual(ca.server.outcomes, ['invalid', 'invalid', 'unauthenticated']);
});

test('whoever is refused hears the same words for every reason, and the log has the reason once a minute', async () => {
  const clock = new FakeClock();
  await using ca = await serve({ accounts: new Set(['shop/cart']), clock });
  const csr = createCsr(CART, keys);
  const stock = 'spiffe://cluster.local/ns/shop/sa/stock';
  const answers = [];
  for (const call of [
    () => ca.ask({ csr }, ''),
    () => ca.ask({ csr }, 'wrong'),
    () => ca.ask({ csr, ...impersonating(stock) }),
    () => ca.ask({ csr, ...impersonating(stock) }),
    () => ca.ask({ csr, ...impersonating(CART.replace('cluster.local', 'evil')) }),
    () => ca.ask({ csr, metadata: { ImpersonatedIdentity: ['x'] } }),
  ]) {
    answers.push(await statusOf(call()));
  }
  assert.deepEqual(new Set(answers.map(({ status }) => status)), new Set(['UNAUTHENTICATED']));
  assert.equal(new Set(answers.map(({ text }) => text)).size, 1);
  const whys = (): string[] => ca.server.lines.map(({ fields }) => String(fields['why']));
  assert.deepEqual(whys(), [
    'no credential that is known here',
    'Kubernetes token: the API server does not know it',
    'no pod of shop/stock on node node-1',
    'spiffe://evil/ns/shop/sa/cart is not of trust domain cluster.local',
    '"["x"]" is no mesh identity',
  ]);
  clock.advance(60_000);
  await statusOf(ca.ask({ csr, ...impersonating(stock) }));
  assert.deepEqual([ca.server.lines.length, ca.server.lines[5]?.fields['repeated']], [6, 1]);
});

test('a caller that asks in ever new names does not fill the log', async () => {
  const clock = new FakeClock();
  await using ca = await serve({ accounts: new Set(['shop/cart']), clock });
  const csr = createCsr(CART, keys);
  const name = (i: number): string => `spiffe://cluster.local/ns/shop/sa/nobody-${i}`;
  for (let i = 0; i < 120; i++) await statusOf(ca.ask({ csr, ...impersonating(name(i)) }));
  assert.equal(ca.server.lines.length, 100);

  clock.advance(1_000);
  await statusOf(ca.ask({ csr, ...impersonating(name(120)) }));
  assert.deepEqual([ca.server.lines.length, ca.server.lines[100]?.fields['omitted']], [101, 20]);
});

test('without trusted node accounts nobody may ask in another name', async () => {
  await using ca = await serve({ isImpersonationOff: true });
  const csr = createCsr(CART, keys);

  assert.equal((await statusOf(ca.ask({ csr, ...impersonating(CART) }))).status, 'UNAUTHENTICATED');
  assert.equal(ca.server.lines[0]?.fields['why'], 'no node accounts are trusted');
  assert.equal((await ca.ask({ csr })).length, 3);
});

test('a CA that cannot sign says that it is not available, and the log says why', async () => {
  await using ca = await serve();
  ca.server.signer = {
    sign: () => {
      throw new MeshError('CV-CA', 'the issuing certificate has expired');
    },
  };
  const { status, text } = await statusOf(ca.ask({ csr: createCsr(CART, keys) }));

  assert.equal(status, 'UNAVAILABLE');
  assert.doesNotMatch(text, /expired/);
  assert.equal(ca.server.lines[0]?.fields['error'], 'the issuing certificate has expired');
  assert.deepEqual(ca.server.outcomes, ['failed']);
});
