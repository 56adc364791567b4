import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type tls from 'node:tls';
import { MeshError } from '../../../src/base/errors.ts';
import type { ReasonCode } from '../../../src/base/reasons.ts';
import { buildLeaf } from '../../../src/identity/certificate-builder.ts';
import { derToPem } from '../../../src/identity/pem.ts';
import { TlsContexts } from '../../../src/identity/tls-context.ts';
import { type AcceptedTls, acceptTls, connectTls } from '../../../src/identity/tls-handshake.ts';
import type { TlsMaterial } from '../../../src/model/verdict.ts';
import { systemClock } from '../../../src/sys/system-clock.ts';
import { meshCa } from '../../support/certs.ts';
import { openssl } from '../../support/openssl.ts';

const CART = 'spiffe://cluster.local/ns/shop/sa/cart';
const WEB = 'spiffe://cluster.local/ns/shop/sa/web';
const HOUR_MS = 3_600_000;
const ca = await meshCa();
const cart = await ca.material(CART);
const web = await ca.material(WEB);
const options = { contexts: new TlsContexts(), clock: systemClock };

const CERTIFICATE = ['-cert', 'cert.pem', '-key', 'key.pem', '-cert_chain', 'chain.pem'];
const H2 = ['-alpn', 'h2'];
const CLIENT = ['-noservername', '-CAfile', 'roots.pem', '-verify_return_error'];

/** A listener whose every connection goes through `acceptTls`; `next` is the outcome of the next one. */
async function listener(
  material: TlsMaterial,
): Promise<{ port: number; next(): Promise<AcceptedTls> } & AsyncDisposable> {
  const waiting: PromiseWithResolvers<AcceptedTls>[] = [];
  const server = net.createServer({ allowHalfOpen: true }, (socket) => {
    const outcome = waiting.shift();
    if (outcome === undefined) socket.destroy();
    else acceptTls(socket, material, options).then(outcome.resolve, outcome.reject);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    port: (server.address() as net.AddressInfo).port,
    next() {
      const outcome = Promise.withResolvers<AcceptedTls>();
      waiting.push(outcome);
      return outcome.promise;
    },
    async [Symbol.asyncDispose]() {
      server.close();
      await once(server, 'close');
    },
  };
}

test('openssl with a certificate of the mesh is accepted, and bytes flow both ways', async () => {
  await using mesh = await listener(cart);
  const accepted = mesh.next();
  await using client = openssl(
    's_client',
    ['-connect', `127.0.0.1:${mesh.port}`, ...CLIENT, ...CERTIFICATE, ...H2],
    web,
  );
  const { socket, peerIdentity } = await accepted;
  socket.write('hello from the mesh\n');
  client.send('hello from openssl\n');
  const [chunk] = await once(socket, 'data');

  assert.equal(peerIdentity, WEB);
  assert.equal(String(chunk), 'hello from openssl\n');
  const output = await client.seen(/hello from the mesh/);
  assert.match(output, /New, TLSv1\.3, Cipher is TLS_AES_256_GCM_SHA384/);
  assert.match(output, /ALPN protocol: h2/);
  assert.match(output, /Verify return code: 0 \(ok\)/);
  assert.match(output, /Server Temp Key: X25519/);
  socket.destroy();
});

test('the server sends leaf and intermediate, not the root', async () => {
  await using mesh = await listener(cart);
  const accepted = mesh.next();
  const args = ['-connect', `127.0.0.1:${mesh.port}`, '-showcerts', ...CLIENT, ...CERTIFICATE, ...H2];
  await using client = openssl('s_client', args, web);
  const { socket } = await accepted;
  const output = await client.seen(/Verify return code/);

  assert.equal(output.match(/BEGIN CERTIFICATE/g)?.length, 2);
  socket.destroy();
});

const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 });
const rsaWeb = (): TlsMaterial => {
  const validity = { notBeforeMs: Date.now() - HOUR_MS, notAfterMs: Date.now() + HOUR_MS };
  const signer = { privateKey: ca.issuing.keys.privateKey, certificateDer: ca.issuing.der };
  const leaf = buildLeaf({ identity: WEB, publicKey: rsa.publicKey, ...validity }, signer);
  const keyPem = rsa.privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
  return { ...web, keyPem, chainPem: derToPem('CERTIFICATE', leaf) + ca.issuingPem };
};

const accepted: readonly {
  readonly name: string;
  readonly args: readonly string[];
  readonly material?: TlsMaterial;
}[] = [
  { name: 'an RSA certificate', args: [...CERTIFICATE, ...H2], material: rsaWeb() },
  { name: 'P-256 alone', args: [...CERTIFICATE, ...H2, '-groups', 'P-256'] },
  { name: 'P-384 alone', args: [...CERTIFICATE, ...H2, '-groups', 'P-384'] },
  { name: 'AES-128 alone', args: [...CERTIFICATE, ...H2, '-ciphersuites', 'TLS_AES_128_GCM_SHA256'] },
  { name: 'h2 as its second protocol', args: [...CERTIFICATE, '-alpn', 'http/1.1,h2'] },
  { name: 'a server name', args: [...CERTIFICATE, ...H2, '-servername', 'some.example'] },
];

for (const { name, args, material = web } of accepted) {
  test(`a client with ${name} is accepted`, async () => {
    await using mesh = await listener(cart);
    const outcome = mesh.next();
    const base = CLIENT.filter((argument) => argument !== '-noservername' || !args.includes('-servername'));
    await using _client = openssl('s_client', ['-connect', `127.0.0.1:${mesh.port}`, ...base, ...args], material);
    const { socket, peerIdentity } = await outcome;
    assert.equal(peerIdentity, WEB);
    socket.destroy();
  });
}

interface RefusedClient {
  readonly name: string;
  readonly args: readonly string[];
  readonly material?: () => Promise<TlsMaterial>;
  readonly code: ReasonCode;
  readonly message: RegExp;
  /** What the foreign peer gets to see. */
  readonly peerSees?: RegExp;
}

const refused: readonly RefusedClient[] = [
  {
    name: 'no certificate',
    args: H2,
    code: 'CV-PEER-CERT',
    message: /^tls handshake error: peer did not present a certificate$/,
    peerSees: /alert certificate required|alert number 116/,
  },
  {
    name: 'a certificate of another trust domain',
    args: [...CERTIFICATE, ...H2],
    material: () => ca.material('spiffe://elsewhere/ns/shop/sa/web'),
    code: 'CV-PEER-TRUST-DOMAIN',
    message: /expected trust domain \(cluster\.local\), got spiffe:\/\/elsewhere\/ns\/shop\/sa\/web$/,
  },
  {
    name: 'an expired certificate',
    args: [...CERTIFICATE, ...H2],
    material: () => ca.material(WEB, { notBeforeMs: Date.now() - 2 * HOUR_MS, notAfterMs: Date.now() - HOUR_MS }),
    code: 'CV-PEER-CERT',
    message: /has expired$/,
  },
  {
    name: 'a certificate of another root',
    args: [...CERTIFICATE, ...H2],
    material: async () => (await meshCa('other')).material(WEB, { rootsPem: [ca.rootPem] }),
    code: 'CV-PEER-CERT',
    message: /not signed by a trusted root/,
  },
  {
    name: 'TLS 1.2 only',
    args: [...CERTIFICATE, ...H2, '-tls1_2'],
    code: 'CV-TLS-HANDSHAKE',
    message: /unsupported protocol/,
    peerSees: /alert protocol version/,
  },
  {
    name: 'another application protocol',
    args: [...CERTIFICATE, '-alpn', 'http/1.1'],
    code: 'CV-TLS-HANDSHAKE',
    message: /no application protocol/,
    peerSees: /alert no application protocol|alert number 120/,
  },
  {
    name: 'no application protocol',
    args: CERTIFICATE,
    code: 'CV-TLS-HANDSHAKE',
    message: /did not agree on ALPN h2/,
  },
  {
    name: 'ChaCha20 only',
    args: [...CERTIFICATE, ...H2, '-ciphersuites', 'TLS_CHACHA20_POLY1305_SHA256'],
    code: 'CV-TLS-HANDSHAKE',
    message: /no shared cipher/,
    peerSees: /handshake failure/,
  },
  {
    name: 'P-521 only',
    args: [...CERTIFICATE, ...H2, '-groups', 'P-521'],
    code: 'CV-TLS-HANDSHAKE',
    message: /no suitable key share|no shared group/,
  },
];

for (const { name, args, material, code, message, peerSees } of refused) {
  test(`a client with ${name} is refused with ${code}`, async () => {
    await using mesh = await listener(cart);
    const outcome = mesh.next();
    const client = ['-connect', `127.0.0.1:${mesh.port}`, ...CLIENT, ...args];
    await using peer = openssl('s_client', client, (await material?.()) ?? web);

    await assert.rejects(outcome, (error) => isRefusal(error, code, message));
    const output = await peer.ended;
    if (peerSees !== undefined) assert.match(output, peerSees);
  });
}

test('a session is never resumed', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'culvert-session-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const session = join(directory, 'session.pem');
  await using mesh = await listener(cart);
  const base = ['-connect', `127.0.0.1:${mesh.port}`, ...CLIENT, ...CERTIFICATE, ...H2];

  const first = mesh.next();
  await using saver = openssl('s_client', [...base, '-sess_out', session], web);
  (await first).socket.end('bye\n');
  await saver.seen(/bye/);
  saver.send('Q\n');
  await saver.ended;
  assert(existsSync(session), 'openssl saved no session to try again with');

  const second = mesh.next();
  await using resumer = openssl('s_client', [...base, '-sess_in', session], web);
  const { socket, peerIdentity } = await second;
  const output = await resumer.seen(/New, TLSv1\.3|Reused, TLSv1\.3/);
  assert.match(output, /New, TLSv1\.3/);
  assert.equal(peerIdentity, WEB);
  socket.destroy();
});

/** Connects to an `openssl s_server` started with `args`. */
async function connectTo(args: readonly string[], material: TlsMaterial): Promise<tls.TLSSocket> {
  await using server = openssl('s_server', ['-accept', '127.0.0.1:0', '-naccept', '1', ...args], material);
  const [, port] = /ACCEPT 127\.0\.0\.1:(\d+)/.exec(await server.seen(/ACCEPT 127\.0\.0\.1:\d+/)) ?? [];
  const socket = net.connect({ port: Number(port), host: '127.0.0.1', allowHalfOpen: true });
  await once(socket, 'connect');
  const secured = await connectTls(socket, web, [CART], options);
  server.send('hello from openssl\n');
  const [chunk] = await once(secured, 'data');
  assert.equal(String(chunk), 'hello from openssl\n');
  secured.destroy();
  return secured;
}

const SERVER = [...CERTIFICATE, '-CAfile', 'roots.pem', '-Verify', '3', '-verify_return_error'];

test('an openssl server that verifies us is accepted, and verifies us', async () => {
  const secured = await connectTo([...SERVER, ...H2], cart);

  assert.equal(secured.alpnProtocol, 'h2');
});

const refusedServers: readonly {
  readonly name: string;
  readonly args: readonly string[];
  readonly material?: () => Promise<TlsMaterial>;
  readonly code: ReasonCode;
  readonly message: RegExp;
}[] = [
  {
    name: 'another identity',
    args: H2,
    material: () => ca.material('spiffe://cluster.local/ns/shop/sa/till'),
    code: 'CV-PEER-IDENTITY',
    message: /expected SAN \(.*\/cart\), got .*\/till$/,
  },
  {
    name: 'an expired certificate',
    args: H2,
    material: () => ca.material(CART, { notBeforeMs: Date.now() - 2 * HOUR_MS, notAfterMs: Date.now() - HOUR_MS }),
    code: 'CV-PEER-CERT',
    message: /has expired/,
  },
  { name: 'TLS 1.2 only', args: [...H2, '-tls1_2'], code: 'CV-TLS-HANDSHAKE', message: /protocol version/ },
  { name: 'no application protocol', args: [], code: 'CV-TLS-HANDSHAKE', message: /did not agree on ALPN h2/ },
  {
    name: 'another application protocol',
    args: ['-alpn', 'http/1.1'],
    code: 'CV-TLS-HANDSHAKE',
    message: /ALPN h2|application protocol/,
  },
];

for (const { name, args, material, code, message } of refusedServers) {
  test(`a server with ${name} is refused with ${code}`, async () => {
    const outcome = connectTo([...SERVER, ...args], (await material?.()) ?? cart);
    await assert.rejects(outcome, (error) => isRefusal(error, code, message));
  });
}

function isRefusal(error: unknown, code: ReasonCode, message: RegExp): boolean {
  assert(error instanceof MeshError, String(error));
  assert.equal(error.code, code, error.message);
  assert.match(error.message, message);
  return true;
}
