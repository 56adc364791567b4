/** Control planes that are broken or hostile: nothing crashes, nothing grows, the last good mesh serves, and the log stays short. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import http2 from 'node:http2';
import net from 'node:net';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { BinaryWriter, WireType } from '@bufbuild/protobuf/wire';
import type { RpcAddress } from '../../../src/rpc/address.ts';
import type { DeltaDiscoveryRequest } from '../../../src/wire/pb/discovery_pb.ts';
import { certificate, localhost, serve } from '../rpc/rpc-fixture.ts';
import { ADDRESS, forever, POLICY, policy, type ResourceInit, scripted, subject, workload } from './xds-fixture.ts';

const MIB = 1024 * 1024;

/** A server that answers each stream with these bytes, and goes no further. */
async function raw(bytes: Uint8Array): Promise<{ address: RpcAddress } & AsyncDisposable> {
  const { chainPem: cert, keyPem: key } = certificate;
  const server = http2.createSecureServer({ cert, key });
  const sessions = new Set<http2.ServerHttp2Session>();
  server.on('session', (session) => sessions.add(session));
  server.on('request', (_request, response) => {
    response.stream.on('error', () => undefined);
    response.writeHead(200, { 'content-type': 'application/grpc', 'grpc-encoding': 'gzip' });
    response.write(bytes);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    address: { kind: 'tls', host: 'localhost', port: (server.address() as net.AddressInfo).port },
    async [Symbol.asyncDispose]() {
      for (const session of sessions) session.destroy();
      await new Promise((done) => server.close(done));
    },
  };
}

function frame(isCompressed: boolean, bytes: number, body = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt8(isCompressed ? 1 : 0, 0);
  head.writeUInt32BE(bytes, 1);
  return Buffer.concat([head, body]);
}

test('a message that announces 300 MiB is refused before it is there', async () => {
  await using server = await raw(frame(false, 300 * MIB));
  await using agent = subject(server.address);
  await agent.until(() => agent.counted.includes('ended Error'), 'the refusal');
  assert.match(agent.client.status.lastError ?? '', /larger than max .*\(RESOURCE_EXHAUSTED\)/);
});

test('1 MiB that unpacks to 201 MiB is refused', async () => {
  const bomb = gzipSync(Buffer.alloc(201 * MIB), { level: 1 });
  await using server = await raw(frame(true, bomb.length, bomb));
  await using agent = subject(server.address);
  await agent.until(() => agent.counted.includes('ended Error'), 'the refusal');
  assert.match(agent.client.status.lastError ?? '', /RESOURCE_EXHAUSTED/);
});

/** A workload with that many addresses of no bytes. */
function emptyAddresses(count: number): Uint8Array {
  const addresses = new Uint8Array(2 * count).map((_, i) => (i % 2 === 0 ? ADDRESSES_TAG : 0));
  return new BinaryWriter().tag(1, WireType.LengthDelimited).bytes(addresses).finish();
}

/** Field 3, length-delimited. */
const ADDRESSES_TAG = 0x1a;

const odd = [
  { name: 'of a thousand groups in each other', value: new Uint8Array(1_000).fill(0x3b), why: /recursion depth/ },
  { name: 'of 5 MiB', value: new Uint8Array(5 * MIB), why: /5242880 bytes/ },
  {
    name: 'with a million empty addresses',
    value: emptyAddresses(1_000_000),
    why: /uid: is empty/,
  },
  { name: 'of rubbish', value: new Uint8Array([0xff, 0xff, 0xff, 0xff]), why: /not a protobuf message/ },
];

for (const { name, value, why } of odd) {
  test(`a resource ${name} is refused with its name, and the stream goes on`, async () => {
    const nack = Promise.withResolvers<DeltaDiscoveryRequest>();
    const script = scripted(async function* (talk) {
      yield { typeUrl: ADDRESS, nonce: '1', resources: [{ name: 'odd', resource: { typeUrl: ADDRESS, value } }] };
      nack.resolve(await talk.answer(ADDRESS, '1'));
      yield { typeUrl: POLICY, nonce: '2' };
      await forever(talk);
    });
    await using server = await serve(script);
    await using agent = subject(localhost(server));
    const { errorDetail } = await nack.promise;
    assert.match(errorDetail?.message ?? '', /^odd: /);
    assert.match(errorDetail?.message ?? '', why);
    await agent.until(() => agent.counted.includes(`message ${POLICY}`), 'the next response');
    assert.deepEqual(
      agent.updates.flatMap(({ workloads }) => workloads),
      [],
    );
  });
}

const unnamed: readonly (readonly [name: string, resource: ResourceInit, why: RegExp])[] = [
  ['no name', { ...workload('w'), name: '' }, /^: it has no name/],
  ['no content', { name: 'w' }, /w: it has no content/],
  ['another type inside', { name: 'w', resource: { typeUrl: POLICY, value: new Uint8Array() } }, /w: it holds a "type/],
  ['a name of 65 KiB', { ...workload('w'), name: 'x'.repeat(65 * 1024) }, /x{200}: a name or version has more than/],
];

for (const [name, resource, why] of unnamed) {
  test(`a resource with ${name} is refused`, async () => {
    const nack = Promise.withResolvers<DeltaDiscoveryRequest>();
    const script = scripted(async function* (talk) {
      yield { typeUrl: ADDRESS, nonce: '1', resources: [resource] };
      nack.resolve(await talk.answer(ADDRESS, '1'));
      await forever(talk);
    });
    await using server = await serve(script);
    await using _agent = subject(localhost(server));
    assert.match((await nack.promise).errorDetail?.message ?? '', why);
  });
}

test('names of 64 KiB are held, and told apart', async () => {
  const long = ['a', 'b'].map((end) => 'x'.repeat(65_000) + end);
  const script = scripted(async function* (talk) {
    yield { typeUrl: ADDRESS, nonce: '1', resources: long.map((uid) => workload(uid)) };
    await talk.answer(ADDRESS, '1');
    yield { typeUrl: ADDRESS, nonce: '2', removedResources: long.slice(0, 1) };
    yield { typeUrl: POLICY, nonce: '3' };
    await forever(talk);
  });
  await using server = await serve(script);
  await using agent = subject(localhost(server));
  await agent.until(() => agent.isReady, 'readiness');
  assert.deepEqual(
    [...agent.index.workloads.all()].map(({ uid }) => uid.at(-1)),
    ['b'],
  );
});

test('a million and one empty resources in 2 MiB are refused as a whole, without a list of them', async () => {
  const many = new Uint8Array(2 * 1_000_001).map((_, i) => (i % 2 === 0 ? 0x12 : 0));
  const type = Buffer.from(ADDRESS);
  const message = Buffer.concat([many, Buffer.of(0x22, type.length), type, Buffer.from([0x2a, 1, 0x6e])]);
  await using server = await raw(frame(false, message.length, message));
  await using agent = subject(server.address);
  await agent.until(() => agent.counted.includes(`rejected ${ADDRESS}`), 'the refusal');
  const error = String(agent.lines.find(({ level }) => level === 'error')?.fields['error']);
  assert.match(error, /^more than 1000000 resources$/);
});

test('a workload that flips with every response costs no line of log and ends in the last version', async () => {
  const flips = 1_000;
  const script = scripted(async function* (talk) {
    yield { typeUrl: POLICY, nonce: 'p' };
    for (let i = 1; i <= flips; i += 1) {
      yield { typeUrl: ADDRESS, nonce: String(i), resources: [workload('w', { node: `n${i}` })] };
    }
    await forever(talk);
  });
  await using server = await serve(script);
  await using agent = subject(localhost(server));
  await agent.until(() => agent.index.workloads.byUid('w')?.node === `n${flips}`, 'the last flip');
  assert.equal([...agent.index.workloads.all()].length, 1);
  const told = agent.lines.filter(({ level }) => level !== 'debug');
  assert.deepEqual(
    told.map(({ message }) => message),
    ['Stream established'],
  );
});

test('hundreds of refused responses, each with another reason, are a handful of lines and a counter', async () => {
  const nacks = 500;
  const script = scripted(async function* (talk) {
    for (let i = 1; i <= nacks; i += 1) {
      yield { typeUrl: POLICY, nonce: String(i), resources: [policy(`p${i}`, { action: 7 as never })] };
    }
    await forever(talk);
  });
  await using server = await serve(script);
  await using agent = subject(localhost(server));
  await agent.until(
    () => agent.counted.filter((text) => text === `rejected ${POLICY}`).length === nacks,
    'all refusals',
  );
  const errors = agent.lines.filter(({ level }) => level === 'error');
  assert(errors.length >= 1 && errors.length <= 5, `${errors.length} lines`);
  // Each of them is new, and fails closed.
  assert.equal([...agent.index.policies.rejected()].length, nacks);
});

test('a path that swallows everything is noticed by its silence, and left for another', async () => {
  const script = scripted(async function* (talk) {
    yield { typeUrl: ADDRESS, nonce: 'a', resources: [workload('w')] };
    yield { typeUrl: POLICY, nonce: 'p' };
    await forever(talk);
  });
  await using server = await serve(script);
  let isHole = false;
  const sockets = new Set<net.Socket>();
  const path = net.createServer((near) => {
    const far = net.connect({ port: server.port, host: '127.0.0.1' });
    for (const socket of [near, far]) {
      sockets.add(socket);
      socket.on('error', () => undefined);
    }
    const isLost = (): boolean => isHole;
    near.on('data', (data) => isLost() || far.write(data));
    far.on('data', (data) => isLost() || near.write(data));
    near.on('close', () => far.destroy());
  });
  path.listen(0, '127.0.0.1');
  await once(path, 'listening');
  await using _path = {
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise((done) => path.close(done));
    },
  };
  const address = { kind: 'tls', host: 'localhost', port: (path.address() as net.AddressInfo).port } as const;
  const channel = { keepalive: { intervalMs: 100, timeoutMs: 300 }, connectTimeoutMs: 1_000 };
  await using agent = subject(address, { channel });
  await agent.until(() => agent.isReady, 'readiness');
  isHole = true;
  await agent.until(() => agent.counted.some((text) => text.startsWith('ended')), 'the loss');
  assert.equal(agent.index.workloads.byUid('w')?.name, 'w');
  isHole = false;
  await agent.until(() => agent.counted.filter((text) => text === 'connected true').length === 2, 'another stream');
});
