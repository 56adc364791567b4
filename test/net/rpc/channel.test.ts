import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import net from 'node:net';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import tls from 'node:tls';
import { create } from '@bufbuild/protobuf';
import { MeshError } from '../../../src/base/errors.ts';
import { tlsOptions } from '../../../src/identity/tls-policy.ts';
import type { RpcChannel } from '../../../src/rpc/channel.ts';
import { rpcRefusal, rpcStatusOf } from '../../../src/rpc/status.ts';
import { IstioCertificateRequestSchema, IstioCertificateService } from '../../../src/wire/pb/citadel_pb.ts';
import { serverCertificate } from '../../support/server-certs.ts';
import {
  certificate,
  certificateService,
  channelTo,
  directory,
  localhost,
  loopback,
  never,
  serve,
} from './rpc-fixture.ts';

const echo = certificateService((csr) => `signed ${csr}`);

async function ask(channel: RpcChannel, csr = 'csr', timeoutMs = 20_000, signal = never): Promise<string> {
  const request = create(IstioCertificateRequestSchema, { csr });
  const answer = await channel.unary(IstioCertificateService.method.createCertificate, request, { timeoutMs, signal });
  return answer.certChain.join();
}

/** Asserts that `work` fails with a `CV-XDS` error whose text matches. */
async function fails(work: Promise<unknown>, text: RegExp): Promise<MeshError> {
  const error: unknown = await work.then(
    () => undefined,
    (caught: unknown) => caught,
  );
  assert(error instanceof MeshError, 'it did not fail');
  assert.equal(error.code, 'CV-XDS');
  assert.match(error.message, text);
  return error;
}

/** Connections of this machine to a port of loopback that are established. */
function connectionsTo(port: number): number {
  const established = `:${port.toString(16).toUpperCase().padStart(4, '0')} 01`;
  const lines = ['tcp', 'tcp6'].flatMap((table) => readFileSync(`/proc/self/net/${table}`, 'utf8').split('\n'));
  // Of each line the far end comes third, its state fourth.
  return lines.filter((line) => line.trim().split(/\s+/).slice(2, 4).join(' ').endsWith(established)).length;
}

test('a call goes through TLS to a host name and to an IP address', async () => {
  await using server = await serve(echo);
  using byName = channelTo(localhost(server));
  using byAddress = channelTo({ kind: 'tls', host: '127.0.0.1', port: server.port });
  assert.equal(await ask(byName), 'signed csr');
  assert.equal(await ask(byAddress), 'signed csr');
});

test('a call goes over a unix socket', async () => {
  using files = directory();
  const path = files.path('rpc.sock');
  await using _server = await serve(echo, { listen: { kind: 'unix', path } });
  using channel = channelTo({ kind: 'unix', path });
  assert.equal(await ask(channel), 'signed csr');
});

test('token, cluster and extra headers go with every call; the token is read anew each time', async () => {
  using files = directory();
  const path = files.write('token', 'first\n');
  const seen = certificateService(
    (_csr, { header }) => `${header('authorization')} ${header('clusterid')} ${header('x-team')}`,
  );
  await using server = await serve(seen);
  const headers = new Map([['x-team', 'mesh']]);
  using channel = channelTo(localhost(server), {
    credentials: { token: { kind: 'file', path }, clusterId: 'Kubernetes', headers },
  });
  assert.equal(await ask(channel), 'Bearer first Kubernetes mesh');
  files.write('token', 'second');
  assert.equal(await ask(channel), 'Bearer second Kubernetes mesh');
});

test('without a token neither authorization nor clusterid is sent', async () => {
  const seen = certificateService((_csr, { header }) => `${header('authorization')} ${header('clusterid')}`);
  await using server = await serve(seen);
  using channel = channelTo(localhost(server), {
    credentials: { token: { kind: 'none' }, clusterId: 'Kubernetes', headers: new Map() },
  });
  assert.equal(await ask(channel), 'undefined undefined');
});

test('an empty token file fails the call before anything is sent', async () => {
  using files = directory();
  let calls = 0;
  await using server = await serve(certificateService(() => String(++calls)));
  using channel = channelTo(localhost(server), {
    credentials: { token: { kind: 'file', path: files.write('token', '') }, headers: new Map() },
  });
  await fails(ask(channel), /token file .*token is empty/);
  assert.equal(calls, 0);
});

test('a server of another root is refused by name, reason and address', async () => {
  const other = serverCertificate('DNS:localhost');
  await using server = await serve(echo, { listen: loopback(other) });
  using channel = channelTo(localhost(server));
  const error = await fails(
    ask(channel),
    /server https:\/\/localhost:\d+: cannot connect: .*not signed by a trusted root/,
  );
  assert.equal(rpcStatusOf(error), 'UNAVAILABLE');
});

test('a server that proves another name is refused, unless that name is the alternative one', async () => {
  const other = serverCertificate('DNS:istiod.other');
  await using server = await serve(echo, { listen: loopback(other) });
  const roots = { kind: 'inline', pem: other.rootPem } as const;
  using strict = channelTo(localhost(server), { tls: { roots } });
  using lenient = channelTo(localhost(server), { tls: { roots, altHostname: 'istiod.other' } });
  await fails(ask(strict), /certificate is for DNS:istiod.other, not for localhost/);
  assert.equal(await ask(lenient), 'signed csr');
});

test('roots are read from disk again: the next call trusts the new root only, and heals when it comes back', async () => {
  using files = directory();
  const path = files.write('roots.pem', certificate.rootPem);
  await using server = await serve(echo);
  using channel = channelTo(localhost(server), { tls: { roots: { kind: 'file', path } } });
  assert.equal(await ask(channel), 'signed csr');
  files.write('roots.pem', serverCertificate('DNS:localhost').rootPem);
  await fails(ask(channel), /not signed by a trusted root/);
  files.write('roots.pem', 'gone');
  await fails(ask(channel), /roots.pem has no readable PEM certificate/);
  files.write('roots.pem', certificate.rootPem);
  assert.equal(await ask(channel), 'signed csr');
});

test('TLS 1.2 is spoken only when it is allowed', async () => {
  const { chainPem: cert, keyPem: key } = certificate;
  const old = tls.createServer({ cert, key, maxVersion: 'TLSv1.2', ALPNProtocols: ['h2'] }, (socket) => {
    socket.on('error', () => undefined).end();
  });
  old.on('tlsClientError', () => undefined);
  old.listen(0, '127.0.0.1');
  await once(old, 'listening');
  await using _close = { [Symbol.asyncDispose]: async () => void (await new Promise((done) => old.close(done))) };
  const address = { kind: 'tls', host: 'localhost', port: (old.address() as net.AddressInfo).port } as const;
  const roots = { kind: 'inline', pem: certificate.rootPem } as const;
  using strict = channelTo(address, { tls: { roots } });
  using lenient = channelTo(address, { tls: { roots, context: { minVersion: 'TLSv1.2' } } });
  await fails(ask(strict), /cannot connect: TLS handshake: /);
  const [error] = await Promise.all([fails(ask(lenient), /./), once(old, 'secureConnection')]);
  assert.doesNotMatch(error.message, /TLS handshake: /);
});

test('the post-quantum policy holds for the control plane too', async () => {
  const { chainPem: cert, keyPem: key } = certificate;
  const classical = tls.createServer({ cert, key, ecdhCurve: 'X25519', ALPNProtocols: ['h2'] });
  classical.on('tlsClientError', () => undefined);
  classical.listen(0, '127.0.0.1');
  await once(classical, 'listening');
  await using _close = { [Symbol.asyncDispose]: async () => void (await new Promise((done) => classical.close(done))) };
  const roots = { kind: 'inline', pem: certificate.rootPem } as const;
  const context = tlsOptions({ isTls12Allowed: true, isPostQuantumOnly: true });
  const address = { kind: 'tls', host: 'localhost', port: (classical.address() as net.AddressInfo).port } as const;
  using refused = channelTo(address, { tls: { roots, context } });
  await fails(ask(refused), /cannot connect: TLS handshake: /);
  await using server = await serve(echo);
  using served = channelTo(localhost(server), { tls: { roots, context } });
  assert.equal(await ask(served), 'signed csr');
});

test('our server speaks nothing below TLS 1.3', async () => {
  await using server = await serve(echo);
  const socket = tls.connect({
    port: server.port,
    host: '127.0.0.1',
    maxVersion: 'TLSv1.2',
    rejectUnauthorized: false,
  });
  const [error] = (await once(socket, 'error')) as [Error];
  assert.match(error.message, /protocol version/);
});

test('a port that nobody listens on is told as that', async () => {
  await using server = await serve(echo);
  const address = localhost(server);
  await server.stop(0);
  using channel = channelTo(address);
  await fails(ask(channel), /cannot connect: connect ECONNREFUSED 127.0.0.1:/);
});

test('what was tried in vain is not tried again behind the back: one connection once the server is back', async () => {
  const first = await serve(echo);
  using channel = channelTo(localhost(first));
  const { port } = first;
  await first.stop(0);
  const tries = Array.from({ length: 5 }, () => undefined);
  for (const _try of tries) await fails(ask(channel), /ECONNREFUSED/);
  await using _second = await serve(echo, { listen: loopback(certificate, port) });
  assert.equal(await ask(channel), 'signed csr');
  // Longer than grpc-js waits before its second try, 1.2 s at most.
  await sleep(2_500);
  assert.equal(connectionsTo(port), 1);
});

test('a name that does not exist is told as that', async () => {
  using channel = channelTo({ kind: 'tls', host: 'no-such-host.invalid', port: 15_012 });
  await fails(ask(channel), /no-such-host.invalid/);
});

test('a server that accepts and says nothing is given up after the connect timeout', async () => {
  const sockets: net.Socket[] = [];
  const silent = net.createServer((socket) => sockets.push(socket.on('error', () => undefined))).listen(0, '127.0.0.1');
  await once(silent, 'listening');
  await using _close = {
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise((done) => silent.close(done));
    },
  };
  const port = (silent.address() as net.AddressInfo).port;
  using channel = channelTo({ kind: 'tls', host: 'localhost', port }, { connectTimeoutMs: 50 });
  await fails(ask(channel), /within 50 ms|in 50 ms/);
});

test('the status and the words of a refusal reach the caller', async () => {
  await using server = await serve(
    certificateService(() => {
      throw rpcRefusal('PERMISSION_DENIED', 'node cannot impersonate\u0007 this');
    }),
  );
  using channel = channelTo(localhost(server));
  const error = await fails(ask(channel), /: node cannot impersonate this \(PERMISSION_DENIED\)$/);
  assert.equal(rpcStatusOf(error), 'PERMISSION_DENIED');
});

test('a defect of a service is answered without its text', async () => {
  await using server = await serve(
    certificateService(() => {
      throw new Error('secret');
    }),
  );
  using channel = channelTo(localhost(server));
  const error = await fails(ask(channel), /internal error \(INTERNAL\)/);
  assert.doesNotMatch(error.message, /secret/);
});

test('an answer that does not come is given up after its time, and the service is told', async () => {
  const told = Promise.withResolvers<void>();
  await using server = await serve(
    certificateService(async (_csr, { signal }) => {
      await once(signal, 'abort');
      told.resolve();
      return '';
    }),
  );
  using channel = channelTo(localhost(server));
  await fails(ask(channel, 'csr', 200), /no answer within 200 ms \(DEADLINE_EXCEEDED\)/);
  await told.promise;
});

test('an aborted call ends at once, also one that was aborted before it started', async () => {
  await using server = await serve(certificateService(async (_csr, { signal }) => String(await once(signal, 'abort'))));
  using channel = channelTo(localhost(server));
  const controller = new AbortController();
  const call = ask(channel, 'csr', 20_000, controller.signal);
  controller.abort(new Error('changed my mind'));
  await fails(call, /changed my mind \(CANCELLED\)/);
  await fails(ask(channel, 'csr', 20_000, controller.signal), /changed my mind \(CANCELLED\)/);
});

test('a request over the limit of the server is refused, and the next one is served', async () => {
  await using server = await serve(echo, { maxReceiveBytes: 10_000 });
  using channel = channelTo(localhost(server));
  await fails(ask(channel, 'x'.repeat(20_000)), /larger than max.*\(RESOURCE_EXHAUSTED\)/);
  assert.equal(await ask(channel), 'signed csr');
});

test('a new server certificate is shown to the next connection', async () => {
  const next = serverCertificate('DNS:localhost');
  await using server = await serve(echo);
  server.setCertificate(next);
  using old = channelTo(localhost(server));
  using current = channelTo(localhost(server), {
    tls: { roots: { kind: 'inline', pem: next.rootPem } },
  });
  await fails(ask(old), /not signed by a trusted root/);
  assert.equal(await ask(current), 'signed csr');
});

test('a taken port is an error that names it', async () => {
  await using server = await serve(echo);
  const listen = loopback(certificate, server.port);
  await assert.rejects(serve(echo, { listen }), { code: 'CV-BIND', message: /EADDRINUSE/ });
});

test('a stopped server lets calls in flight finish', async () => {
  const arrived = Promise.withResolvers<void>();
  const answer = Promise.withResolvers<string>();
  await using server = await serve(
    certificateService(() => {
      arrived.resolve();
      return answer.promise;
    }),
  );
  using channel = channelTo(localhost(server));
  const call = ask(channel);
  await arrived.promise;
  const stopped = server.stop(20_000);
  answer.resolve('late but whole');
  assert.equal(await call, 'late but whole');
  await stopped;
});
