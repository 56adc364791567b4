import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { create, fromBinary, type MessageShape, toBinary } from '@bufbuild/protobuf';
import { MeshError } from '../../../src/base/errors.ts';
import { type CallContext, rpcService } from '../../../src/rpc/service.ts';
import { rpcRefusal } from '../../../src/rpc/status.ts';
import {
  AggregatedDiscoveryService,
  DeltaDiscoveryRequestSchema,
  DeltaDiscoveryResponseSchema,
} from '../../../src/wire/pb/discovery_pb.ts';
import {
  SpiffeWorkloadAPI,
  X509BundlesRequestSchema,
  X509BundlesResponseSchema,
  X509SVIDRequestSchema,
  X509SVIDResponseSchema,
} from '../../../src/wire/pb/spiffe_pb.ts';
import { channelTo, localhost, never, serve } from './rpc-fixture.ts';

type Requests = AsyncIterable<MessageShape<typeof DeltaDiscoveryRequestSchema>>;
type Responses = AsyncIterable<MessageShape<typeof DeltaDiscoveryResponseSchema>>;

const { deltaAggregatedResources: stream } = AggregatedDiscoveryService.method;

function discovery(handler: (requests: Requests, context: CallContext) => Responses) {
  return rpcService(AggregatedDiscoveryService, { deltaAggregatedResources: handler });
}

function request(responseNonce: string) {
  return toBinary(DeltaDiscoveryRequestSchema, create(DeltaDiscoveryRequestSchema, { responseNonce }));
}

function nonceOf(bytes: Buffer | undefined): string | undefined {
  return bytes && fromBinary(DeltaDiscoveryResponseSchema, bytes).nonce;
}

const echo = discovery(async function* (requests) {
  for await (const { responseNonce } of requests) yield create(DeltaDiscoveryResponseSchema, { nonce: responseNonce });
});

test('messages of a stream keep their order in both directions', async () => {
  await using server = await serve(echo);
  using channel = channelTo(localhost(server));
  const call = channel.duplex(stream, never);
  const names = Array.from({ length: 50 }, (_, i) => String(i));
  // Sent before there is a connection, and without waiting for each other.
  for (const name of names) void call.send(request(name));
  const answers: (string | undefined)[] = [];
  while (answers.length < names.length) answers.push(nonceOf(await call.read()));
  assert.deepEqual(answers, names);
  call.cancel();
  await assert.rejects(call.read(), { code: 'CV-XDS', message: /CANCELLED/ });
});

test('a stream that the server ends well ends with `undefined`, and says so again', async () => {
  await using server = await serve(
    discovery(async function* () {
      yield create(DeltaDiscoveryResponseSchema, { nonce: 'only' });
    }),
  );
  using channel = channelTo(localhost(server));
  const call = channel.duplex(stream, never);
  assert.equal(nonceOf(await call.read()), 'only');
  assert.equal(await call.read(), undefined);
  assert.equal(await call.read(), undefined);
  await call.send(request('into the void'));
});

test('a refusal in the middle of a stream comes after the messages before it', async () => {
  await using server = await serve(
    discovery(async function* () {
      yield create(DeltaDiscoveryResponseSchema, { nonce: 'first' });
      throw rpcRefusal('UNAUTHENTICATED', 'token has expired');
    }),
  );
  using channel = channelTo(localhost(server));
  const call = channel.duplex(stream, never);
  assert.equal(nonceOf(await call.read()), 'first');
  await assert.rejects(call.read(), /token has expired \(UNAUTHENTICATED\)/);
});

test('a reader that stops makes the service stop: neither side hoards messages', async () => {
  const nonce = 'x'.repeat(512 * 1024);
  const total = 40;
  let made = 0;
  await using server = await serve(
    discovery(async function* () {
      for (; made < total; made += 1) yield create(DeltaDiscoveryResponseSchema, { nonce });
    }),
  );
  using channel = channelTo(localhost(server));
  const call = channel.duplex(stream, never);
  let read = 0;
  for (; (await call.read()) !== undefined; read += 1) {
    // What may be between the two: windows of 1 MiB here and 64 KiB there, socket buffers, one message in each hand.
    assert(made - read <= 24, `${made} made, ${read} read`);
    // The service runs in this process: so many turns are its chance to run ahead.
    for (let turn = 0; read === 0 && turn < 500; turn += 1) await nextTurn();
  }
  assert.equal(read, total);
});

test('the service learns that its caller is gone, while it sends and while it waits', async () => {
  const gone = { sending: Promise.withResolvers<void>(), waiting: Promise.withResolvers<void>() };
  await using server = await serve(
    discovery(async function* (requests) {
      try {
        for await (const { responseNonce } of requests) {
          const nonce = responseNonce === 'flood' ? 'x'.repeat(1024 * 1024) : 'hello';
          do yield create(DeltaDiscoveryResponseSchema, { nonce });
          while (responseNonce === 'flood');
        }
        gone.waiting.resolve();
      } finally {
        gone.sending.resolve();
      }
    }),
  );
  using channel = channelTo(localhost(server));
  const waiting = channel.duplex(stream, never);
  await waiting.send(request('hello'));
  assert.equal(nonceOf(await waiting.read()), 'hello');
  waiting.cancel();
  await gone.waiting.promise;
  const sending = channel.duplex(stream, never);
  await sending.send(request('flood'));
  await sending.read();
  sending.cancel();
  await gone.sending.promise;
});

test('a server stream gives its messages, then ends; leaving the loop cancels it', async () => {
  const left = Promise.withResolvers<void>();
  await using server = await serve(
    rpcService(SpiffeWorkloadAPI, {
      async *fetchX509SVID(_request, { header }) {
        if (header('workload.spiffe.io') !== 'true') throw rpcRefusal('INVALID_ARGUMENT', 'security header missing');
        yield create(X509SVIDResponseSchema, { svids: [{ spiffeId: 'spiffe://a/b' }] });
      },
      async *fetchX509Bundles(_request, { signal }) {
        yield create(X509BundlesResponseSchema, { bundles: { 'spiffe://a': Uint8Array.of(1) } });
        await once(signal, 'abort');
        left.resolve();
      },
    }),
  );
  const credentials = { token: { kind: 'none' }, headers: new Map([['workload.spiffe.io', 'true']]) } as const;
  using channel = channelTo(localhost(server), { credentials });
  const ids: string[] = [];
  const { fetchX509SVID, fetchX509Bundles } = SpiffeWorkloadAPI.method;
  for await (const { svids } of channel.serverStream(fetchX509SVID, create(X509SVIDRequestSchema), never)) {
    ids.push(...svids.map(({ spiffeId }) => spiffeId));
  }
  assert.deepEqual(ids, ['spiffe://a/b']);
  for await (const _bundles of channel.serverStream(fetchX509Bundles, create(X509BundlesRequestSchema), never)) break;
  await left.promise;
});

test('a stream through a connection that breaks ends with an error, not with silence', async () => {
  const server = await serve(echo);
  using channel = channelTo(localhost(server));
  const call = channel.duplex(stream, never);
  await call.send(request('1'));
  assert.equal(nonceOf(await call.read()), '1');
  const next = call.read();
  await server.stop(0);
  await assert.rejects(next, (error) => error instanceof MeshError && error.code === 'CV-XDS');
});

test('answers that cannot be decoded are an error of the call, not of the process', async () => {
  await using server = await serve(
    discovery(async function* () {
      yield create(DeltaDiscoveryResponseSchema, { systemVersionInfo: '\u00ff\u00ff' });
    }),
  );
  using channel = channelTo(localhost(server));
  // The method of another service on the path of this one.
  const wrong = { ...SpiffeWorkloadAPI.method.fetchX509SVID, parent: AggregatedDiscoveryService, name: stream.name };
  const messages = channel.serverStream(wrong, create(X509SVIDRequestSchema), never);
  await assert.rejects(messages.next(), /cannot be decoded.*\(INTERNAL\)/);
});
