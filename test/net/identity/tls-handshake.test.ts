import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import http2 from 'node:http2';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Duplex } from 'node:stream';
import { test } from 'node:test';
import tls from 'node:tls';
import { MeshError } from '../../../src/base/errors.ts';
import type { ReasonCode } from '../../../src/base/reasons.ts';
import { TlsContexts } from '../../../src/identity/tls-context.ts';
import { acceptTls, connectTls } from '../../../src/identity/tls-handshake.ts';
import type { TlsMaterial } from '../../../src/model/verdict.ts';
import { systemClock } from '../../../src/sys/system-clock.ts';
import { EKU_CLIENT_AUTH, EKU_SERVER_AUTH } from '../../../src/wire/x509-san.ts';
import { meshCa } from '../../support/certs.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { tcpPair } from '../../support/tcp.ts';

const CART = 'spiffe://cluster.local/ns/shop/sa/cart';
const WEB = 'spiffe://cluster.local/ns/shop/sa/web';
const ca = await meshCa();
const other = await meshCa('other');
const cart = await ca.material(CART);
const web = await ca.material(WEB);
const contexts = new TlsContexts();
const options = { contexts, clock: systemClock };

/** Each test has its own contexts, so that materials of one identity do not push each other out. */
const fresh = (): typeof options => ({ contexts: new TlsContexts(), clock: systemClock });

interface Outcome {
  readonly server: PromiseSettledResult<Awaited<ReturnType<typeof acceptTls>>>;
  readonly client: PromiseSettledResult<tls.TLSSocket>;
}

async function handshake(
  pair: { readonly near: net.Socket; readonly far: net.Socket },
  client: TlsMaterial,
  server: TlsMaterial,
  expected: readonly string[] = [server.identity],
): Promise<Outcome> {
  const [accepted, connected] = await Promise.allSettled([
    acceptTls(pair.far, server, fresh()),
    connectTls(pair.near, client, expected, fresh()),
  ]);
  return { server: accepted, client: connected };
}

function assertRefused(outcome: PromiseSettledResult<unknown>, code: ReasonCode, message: RegExp): void {
  assert(outcome.status === 'rejected', 'the handshake was accepted');
  assert(outcome.reason instanceof MeshError);
  assert.equal(outcome.reason.code, code, outcome.reason.message);
  assert.match(outcome.reason.message, message);
}

test('both sides prove their identity over TLS 1.3 with ALPN h2, and HTTP/2 runs on the sockets', async () => {
  await using pair = await tcpPair();
  const [{ socket, peerIdentity }, client] = await Promise.all([
    acceptTls(pair.far, cart, options),
    connectTls(pair.near, web, [CART], options),
  ]);

  assert.equal(peerIdentity, WEB);
  assert.equal(client.getProtocol(), 'TLSv1.3');
  assert.equal(client.getCipher().name, 'TLS_AES_256_GCM_SHA384');
  assert.deepEqual([client.alpnProtocol, socket.alpnProtocol], ['h2', 'h2']);
  http2.performServerHandshake(socket).on('stream', (stream) => {
    stream.respond({ ':status': 200 });
    stream.end('over the mesh');
  });
  const session = http2.connect('http://mesh', { createConnection: () => client });
  const request = session.request({ ':path': '/' });
  const [chunk] = await once(request, 'data');
  assert.equal(String(chunk), 'over the mesh');
  session.destroy();
});

test('half-open sockets stay half-open after the handshake', async () => {
  await using pair = await tcpPair();
  const [{ socket }, client] = await Promise.all([
    acceptTls(pair.far, cart, options),
    connectTls(pair.near, web, [CART], options),
  ]);
  client.end('request');
  socket.resume();
  await once(socket, 'end');
  socket.end('answer');

  const [chunk] = await once(client, 'data');
  assert.equal(String(chunk), 'answer');
});

test('a handshake runs inside another one, as double HBONE needs', async () => {
  await using pair = await tcpPair();
  const [outerServer, outerClient] = await Promise.all([
    acceptTls(pair.far, cart, options),
    connectTls(pair.near, web, [CART], options),
  ]);
  const [inner, client] = await Promise.all([
    acceptTls(passThrough(outerServer.socket), cart, options),
    connectTls(passThrough(outerClient), web, [CART], options),
  ]);
  client.write('twice wrapped');

  const [chunk] = await once(inner.socket, 'data');
  assert.equal(String(chunk), 'twice wrapped');
  assert.equal(inner.peerIdentity, WEB);
});

test('the client accepts any of several expected identities', async () => {
  await using pair = await tcpPair();
  const { client } = await handshake(pair, web, cart, ['spiffe://cluster.local/ns/x/sa/y', CART]);

  assert.equal(client.status, 'fulfilled');
});

test('the client refuses a server with another identity, naming both, and destroys the socket', async () => {
  await using pair = await tcpPair();
  const wanted = 'spiffe://cluster.local/ns/shop/sa/till';
  const { client } = await handshake(pair, web, cart, [wanted]);

  assertRefused(
    client,
    'CV-PEER-IDENTITY',
    new RegExp(`^identity verification error: peer did not present the expected SAN \\(${wanted}\\), got ${CART}$`),
  );
  assert.equal(pair.near.destroyed, true);
});

test('the client refuses every server when it expects no identity', async () => {
  await using pair = await tcpPair();
  assertRefused((await handshake(pair, web, cart, [])).client, 'CV-PEER-IDENTITY', /expected SAN \(\)/);
});

test('the server refuses a client of another trust domain under the same root', async () => {
  await using pair = await tcpPair();
  const stranger = await ca.material('spiffe://cluster.local.evil/ns/shop/sa/web');
  const { server } = await handshake(pair, stranger, cart);

  assertRefused(
    server,
    'CV-PEER-TRUST-DOMAIN',
    /expected trust domain \(cluster\.local\), got spiffe:\/\/cluster\.local\.evil\/ns\/shop\/sa\/web$/,
  );
  assert.equal(pair.far.destroyed, true);
});

test('a certificate without a SPIFFE ID is in no trust domain', async () => {
  await using pair = await tcpPair();
  const stranger = await ca.material('https://cluster.local/ns/shop/sa/web');

  assertRefused((await handshake(pair, stranger, cart)).server, 'CV-PEER-TRUST-DOMAIN', /got https:/);
});

const HOUR_MS = 3_600_000;
const refusedChains: readonly {
  readonly name: string;
  readonly material: () => Promise<TlsMaterial>;
  readonly message: RegExp;
}[] = [
  {
    name: 'of another root',
    material: () => other.material(WEB, { rootsPem: [ca.rootPem, other.rootPem] }),
    message: /not signed by a trusted root|root that is not trusted/,
  },
  {
    name: 'that has expired',
    material: () => ca.material(WEB, { notBeforeMs: Date.now() - 2 * HOUR_MS, notAfterMs: Date.now() - HOUR_MS }),
    message: /has expired/,
  },
  {
    name: 'that is not valid yet',
    material: () => ca.material(WEB, { notBeforeMs: Date.now() + HOUR_MS }),
    message: /not valid yet/,
  },
  {
    name: 'without its intermediate',
    material: async () => ({
      ...web,
      chainPem: web.chainPem.slice(0, web.chainPem.indexOf('-----END') + 26),
      serial: 'cut',
    }),
    message: /not signed by a trusted root/,
  },
];

for (const { name, material, message } of refusedChains) {
  test(`the server refuses a client certificate ${name}`, async () => {
    await using pair = await tcpPair();
    assertRefused((await handshake(pair, await material(), cart)).server, 'CV-PEER-CERT', message);
    assert.equal(pair.far.destroyed, true);
  });

  test(`the client refuses a server certificate ${name}`, async () => {
    await using pair = await tcpPair();
    const { client } = await handshake(pair, { ...cart, rootsPem: [ca.rootPem] }, await material());
    assertRefused(client, 'CV-PEER-CERT', message);
    assert.equal(pair.near.destroyed, true);
  });
}

test('a certificate for servers only is refused from a client, and one for clients only from a server', async () => {
  await using first = await tcpPair();
  const serverOnly = await ca.material(WEB, { extendedKeyUsages: [EKU_SERVER_AUTH] });
  assertRefused((await handshake(first, serverOnly, cart)).server, 'CV-PEER-CERT', /does not allow this use/);

  await using second = await tcpPair();
  const clientOnly = await ca.material(CART, { extendedKeyUsages: [EKU_CLIENT_AUTH] });
  assertRefused((await handshake(second, web, clientOnly)).client, 'CV-PEER-CERT', /does not allow this use/);
});

test('certificates without any extended key usage serve both sides', async () => {
  await using pair = await tcpPair();
  const plain = { extendedKeyUsages: [] };
  const { server, client } = await handshake(pair, await ca.material(WEB, plain), await ca.material(CART, plain));

  assert.deepEqual([server.status, client.status], ['fulfilled', 'fulfilled']);
});

test('roots overlap: while both are trusted each side accepts the other, before and after the swap', async () => {
  const both = { rootsPem: [ca.rootPem, other.rootPem] };
  const [oldCart, newCart] = [await ca.material(CART, both), await other.material(CART, both)];
  const [oldWeb, newWeb] = [await ca.material(WEB, both), await other.material(WEB, both)];
  for (const [client, server] of [
    [oldWeb, newCart],
    [newWeb, oldCart],
    [newWeb, newCart],
  ] as const) {
    await using pair = await tcpPair();
    const outcome = await handshake(pair, client, server);
    assert.deepEqual([outcome.server.status, outcome.client.status], ['fulfilled', 'fulfilled']);
  }
});

test('a renewed certificate is presented at the very next handshake', async () => {
  const shared = fresh();
  const renewed = await ca.material(CART);
  for (const material of [cart, renewed]) {
    await using pair = await tcpPair();
    const [, client] = await Promise.all([
      acceptTls(pair.far, material, shared),
      connectTls(pair.near, web, [CART], shared),
    ]);
    const serial = BigInt(`0x${client.getPeerX509Certificate()?.serialNumber}`).toString();
    assert.equal(serial, material.serial);
  }
  assert.equal(shared.contexts.size, 2);
});

test('contexts of at most 1024 identities are kept', async () => {
  const cache = new TlsContexts();
  const first = cache.server({ ...cart, identity: 'first' });
  assert.equal(cache.server({ ...cart, identity: 'first' }), first);
  for (let i = 0; i < 1024; i++) cache.drop(`other-${i}`);
  for (let i = 0; i < 1024; i++) cache.client({ ...cart, identity: `other-${i}` });

  assert.equal(cache.size, 1024);
  assert.notEqual(cache.server({ ...cart, identity: 'first' }), first);
});

test('the ClientHello has no SNI, no ticket and no early data, offers TLS 1.3 alone, our suites, groups and h2', async () => {
  await using pair = await tcpPair();
  const failed = assert.rejects(connectTls(pair.near, web, [CART], options), MeshError);
  const [record]: Buffer[] = await once(pair.far, 'data');
  const hello = clientHello(record ?? Buffer.alloc(0));
  pair.far.destroy();
  await failed;

  const types = hello.extensions.map(({ type }) => type);
  // 0 server_name, 41 pre_shared_key, 42 early_data (RFC 8446 §4.2).
  for (const absent of [0, 41, 42]) assert(!types.includes(absent), `extension ${absent}`);
  const extension = (type: number): string =>
    hello.extensions.find((one) => one.type === type)?.value.toString('hex') ?? '';
  assert.equal(hello.suites, '13021301');
  assert.equal(extension(43), '020304', 'supported_versions');
  assert.equal(extension(16), '0003026832', 'ALPN');
  assert.equal(extension(10), '0008001d0017001811ec', 'X25519, P-256, P-384, X25519MLKEM768');
});

test('a silent client is dropped after 10 s, and so is a silent server', async () => {
  await using pair = await tcpPair();
  const clock = new FakeClock();
  const accepting = acceptTls(pair.far, cart, { contexts, clock });
  clock.advance(9_999);
  assert.equal(pair.far.destroyed, false);
  clock.advance(1);
  await assert.rejects(accepting, {
    code: 'CV-TLS-TIMEOUT',
    message: 'tls handshake error: not finished after 10000 ms',
  });
  assert.equal(pair.far.destroyed, true);

  await using second = await tcpPair();
  const connecting = connectTls(second.near, web, [CART], { contexts, clock, timeoutMs: 50 });
  clock.advance(50);
  await assert.rejects(connecting, { code: 'CV-TLS-TIMEOUT' });
  assert.equal(second.near.destroyed, true);
});

test('two hundred connections that say nothing are all gone at the deadline, and the next client is served', async () => {
  const server = net.createServer({ allowHalfOpen: true }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as net.AddressInfo;
  const clock = new FakeClock();
  const outcomes: Promise<unknown>[] = [];
  const all = Promise.withResolvers<void>();
  server.on('connection', (socket) => {
    outcomes.push(acceptTls(socket, cart, { contexts, clock }));
    if (outcomes.length === 200) all.resolve();
  });
  const silent = Array.from({ length: 200 }, () => net.connect(port, '127.0.0.1'));
  await all.promise;
  const ended = Promise.all(silent.map((socket) => once(socket.resume(), 'end')));
  clock.advance(10_000);
  const settled = await Promise.allSettled(outcomes);
  await ended;

  for (const outcome of settled) assertRefused(outcome, 'CV-TLS-TIMEOUT', /not finished/);
  const late = net.connect(port, '127.0.0.1');
  await connectTls(late, web, [CART], options);
  await outcomes.at(-1);
  late.destroy();
  server.close();
});

test('roots of the system or of the environment are never trusted', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'culvert-roots-'));
  const file = join(directory, 'other.pem');
  await writeFile(file, other.rootPem);
  const url = (path: string): string => new URL(`../../../${path}`, import.meta.url).href;
  const stranger = await other.material(WEB, { rootsPem: [ca.rootPem] });
  const source = `
    const [{ acceptTls, connectTls }, { TlsContexts }, { systemClock: clock }, { tcpPair }] = await Promise.all([
      import('${url('src/identity/tls-handshake.ts')}'), import('${url('src/identity/tls-context.ts')}'),
      import('${url('src/sys/system-clock.ts')}'), import('${url('test/support/tcp.ts')}')]);
    const [server, client] = ${JSON.stringify([cart, stranger])};
    const pair = await tcpPair();
    const options = { contexts: new TlsContexts(), clock };
    connectTls(pair.near, client, [server.identity], options).catch(() => undefined);
    await acceptTls(pair.far, server, options).then(() => console.log('accepted'), (error) => console.log(error.code));
    process.exit();`;
  const env = { ...process.env, NODE_EXTRA_CA_CERTS: file, NODE_TLS_REJECT_UNAUTHORIZED: '0', NODE_NO_WARNINGS: '1' };
  const child = spawn(process.execPath, ['--input-type=module', '-e', source], {
    env,
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const [output] = await once(child.stdout, 'data');
  await once(child, 'close');
  await rm(directory, { recursive: true });

  assert.equal(String(output).trim(), 'CV-PEER-CERT');
});

const hangUps: readonly (readonly [string, (socket: net.Socket) => void])[] = [
  ['a FIN', (socket) => socket.end()],
  ['a reset', (socket) => socket.resetAndDestroy()],
  ['half a ClientHello and a FIN', (socket) => socket.end(Buffer.from('1603010200010001fc0303', 'hex'))],
];

for (const [name, hangUp] of hangUps) {
  test(`${name} in the handshake ends it at once, on either side`, async () => {
    await using pair = await tcpPair();
    const accepting = acceptTls(pair.far, cart, options);
    hangUp(pair.near);
    await assert.rejects(accepting, { code: 'CV-TLS-HANDSHAKE', message: /^tls handshake error: / });
    assert.equal(pair.far.destroyed, true);

    await using second = await tcpPair();
    const connecting = connectTls(second.near, web, [CART], options);
    hangUp(second.far);
    await assert.rejects(connecting, { code: 'CV-TLS-HANDSHAKE', message: /^tls handshake error: / });
    assert.equal(second.near.destroyed, true);
  });
}

test('plain HTTP and random bytes are refused with a readable reason', async () => {
  await using first = await tcpPair();
  first.near.write('GET / HTTP/1.1\r\n\r\n');
  await assert.rejects(acceptTls(first.far, cart, options), { code: 'CV-TLS-HANDSHAKE', message: /http request/ });

  await using second = await tcpPair();
  second.near.write(Buffer.alloc(64, 7));
  await assert.rejects(acceptTls(second.far, cart, options), {
    code: 'CV-TLS-HANDSHAKE',
    message: /wrong version|record/,
  });
});

test('a socket that is closed already is refused', async () => {
  await using pair = await tcpPair();
  pair.near.destroy();
  pair.far.destroy();
  await assert.rejects(acceptTls(pair.far, cart, options), { code: 'CV-TLS-HANDSHAKE' });
  await assert.rejects(connectTls(pair.near, web, [CART], options), { code: 'CV-TLS-HANDSHAKE' });
});

test('key material that does not load rejects the handshake and destroys the socket', async () => {
  await using pair = await tcpPair();
  const broken = { ...cart, keyPem: web.keyPem, serial: 'broken' };
  await assert.rejects(acceptTls(pair.far, broken, fresh()), MeshError);
  await assert.rejects(connectTls(pair.near, broken, [CART], fresh()), MeshError);
  assert.deepEqual([pair.near.destroyed, pair.far.destroyed], [true, true]);
});

test('errors after the handshake end the sockets and are not unhandled', async () => {
  await using pair = await tcpPair();
  const [{ socket }, client] = await Promise.all([
    acceptTls(pair.far, cart, options),
    connectTls(pair.near, web, [CART], options),
  ]);
  // `once` of node:events would reject at the error, and with that handle it.
  const closed = Promise.all([socket, client].map((one) => new Promise((resolve) => one.on('close', resolve))));
  socket.destroy(new Error('after success'));
  pair.near.resetAndDestroy();
  await closed;
  assert.equal(client.destroyed, true);
});

test('a server that refuses our certificate ends the stream after our own success', async () => {
  await using pair = await tcpPair();
  const server = tls.createServer({
    key: cart.keyPem,
    cert: cart.chainPem,
    ca: other.rootPem,
    requestCert: true,
    ALPNProtocols: ['h2'],
  });
  server.on('tlsClientError', () => undefined);
  server.emit('connection', pair.far);
  const client = await connectTls(pair.near, web, [CART], options);
  client.resume();
  await once(client, 'end');
});

/** The same bytes as `inner`, as a stream that is no socket. */
function passThrough(inner: Duplex): Duplex {
  const outer = new Duplex({
    read: () => inner.resume(),
    write: (chunk, _encoding, done) => void inner.write(chunk, () => done()),
    final: (done) => void inner.end(done),
    destroy: (error, done) => {
      inner.destroy();
      done(error);
    },
  });
  inner.on('data', (chunk) => outer.push(chunk) || inner.pause());
  inner.on('end', () => outer.push(null));
  return outer;
}

interface ClientHello {
  readonly suites: string;
  readonly extensions: readonly { readonly type: number; readonly value: Buffer }[];
}

/** One whole ClientHello in one record (RFC 8446 §4.1.2). */
function clientHello(record: Buffer): ClientHello {
  // Record header 5, handshake header 4, version 2, random 32, then the session id.
  let at = 43;
  at += 1 + record.readUInt8(at);
  const suites = record.subarray(at + 2, at + 2 + record.readUInt16BE(at)).toString('hex');
  at += 2 + record.readUInt16BE(at);
  at += 1 + record.readUInt8(at);
  const end = at + 2 + record.readUInt16BE(at);
  const extensions = [];
  for (at += 2; at < end; at += 4 + record.readUInt16BE(at + 2)) {
    const length = record.readUInt16BE(at + 2);
    extensions.push({ type: record.readUInt16BE(at), value: record.subarray(at + 4, at + 4 + length) });
  }
  return { suites, extensions };
}
