import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fromBinary, toBinary } from '@bufbuild/protobuf';
import { rpcRefusal } from '../../../src/rpc/status.ts';
import { NodeSchema } from '../../../src/wire/pb/core_pb.ts';
import type { DeltaDiscoveryRequest } from '../../../src/wire/pb/discovery_pb.ts';
import { certificate, localhost, loopback, serve } from '../rpc/rpc-fixture.ts';
import { ADDRESS, forever, NODE, POLICY, policy, scripted, service, subject, workload } from './xds-fixture.ts';

const empty = { typeUrl: POLICY, nonce: 'p' };

test('the first requests say who asks and what for; answers carry nonces; both together make the agent ready', async () => {
  const heard: DeltaDiscoveryRequest[] = [];
  const script = scripted(async function* (talk) {
    heard.push(await talk.heard(), await talk.heard());
    yield { typeUrl: ADDRESS, nonce: 'a', resources: [workload('w'), service('web')] };
    heard.push(await talk.answer(ADDRESS, 'a'));
    yield empty;
    heard.push(await talk.answer(POLICY, 'p'));
    await forever(talk);
  });
  await using server = await serve(script);
  await using agent = subject(localhost(server));
  await agent.until(() => agent.isReady && heard.length === 4, 'readiness');
  const [addresses, policies, ackOfAddresses, ackOfPolicies] = heard;
  assert.deepEqual([addresses?.typeUrl, policies?.typeUrl], [ADDRESS, POLICY]);
  for (const first of [addresses, policies]) {
    assert.deepEqual(first?.node, fromBinary(NodeSchema, toBinary(NodeSchema, NODE)));
    assert.deepEqual(
      [first?.resourceNamesSubscribe, first?.resourceNamesUnsubscribe, first?.responseNonce],
      [[], [], ''],
    );
  }
  for (const ack of [ackOfAddresses, ackOfPolicies])
    assert.deepEqual([ack?.node, ack?.errorDetail], [undefined, undefined]);
  assert.equal(agent.index.workloads.byUid('w')?.name, 'w');
  assert.equal(agent.index.services.byKey('shop/web')?.name, 'web');
  assert.deepEqual(agent.client.status, {
    peer: `control plane https://localhost:${server.port}`,
    isConnected: true,
    isReady: true,
    isBehind: false,
    addresses: 2,
    policies: 0,
    waiting: 0,
  });
});

test('the node is spelt as istiod reads it', () => {
  assert.equal(NODE.id, 'ztunnel~10.0.0.9~agent-x.istio-system~istio-system.svc.cluster.local');
  assert.deepEqual(NODE.metadata, {
    NAME: 'agent-x',
    NAMESPACE: 'istio-system',
    INSTANCE_IPS: '10.0.0.9',
    NODE_NAME: 'node-1',
    CLUSTER_ID: 'Kubernetes',
    LABELS: { app: 'agent' },
  });
});

test('one response is one update, with its removals; the mesh is changed before the answer goes out', async () => {
  let heldAtAck: readonly string[] = [];
  await using server = await serve(
    scripted(async function* (talk) {
      yield { typeUrl: ADDRESS, nonce: '1', resources: [workload('a'), workload('b'), service('web')] };
      await talk.answer(ADDRESS, '1');
      yield {
        typeUrl: ADDRESS,
        nonce: '2',
        resources: [workload('c')],
        removedResources: ['a', 'shop/web', 'x/y/z', 'none'],
      };
      await talk.answer(ADDRESS, '2');
      heldAtAck = [...agent.index.workloads.all()].map(({ uid }) => uid);
      yield { typeUrl: POLICY, nonce: '3', resources: [policy('p')] };
      await forever(talk);
    }),
  );
  await using agent = subject(localhost(server));
  await agent.until(() => agent.isReady, 'readiness');
  assert.deepEqual(heldAtAck, ['b', 'c']);
  assert.equal(agent.updates.length, 3);
  assert.equal(agent.index.services.byKey('shop/web'), undefined);
  assert.deepEqual(
    [...agent.index.policies.accepted()].map(({ name }) => name),
    ['p'],
  );
});

test('a large mesh is told in small updates until all of it is there once, and later changes in one each', async () => {
  const many = (prefix: string) => Array.from({ length: 2_500 }, (_, n) => workload(`${prefix}${n}`));
  await using server = await serve(
    scripted(async function* (talk) {
      yield empty;
      const removedResources = ['first7', 'nobody'];
      yield { typeUrl: ADDRESS, nonce: '1', resources: [service('web'), ...many('first')], removedResources };
      await talk.answer(ADDRESS, '1');
      yield { typeUrl: ADDRESS, nonce: '2', resources: many('second') };
      await forever(talk);
    }),
  );
  await using agent = subject(localhost(server));
  await agent.until(() => agent.isReady, 'readiness');
  await agent.until(() => agent.index.workloads.size > 2_499, 'the second change');
  const sizes = agent.updates.map(({ workloads, services }) => workloads.length + services.length);
  assert.equal(sizes.pop(), 2_500);
  assert(Math.max(...sizes) <= 1_000, sizes.join());
  assert.equal(
    sizes.reduce((sum, size) => sum + size),
    2_500,
  );
  assert.equal(agent.index.workloads.size, 4_999);
  assert.equal(agent.index.workloads.byUid('first7'), undefined);
});

test('after a lost stream the held versions are echoed, and the mesh stays as it was meanwhile', async () => {
  const echoed: Record<string, string>[] = [];
  const script = scripted(async function* (talk, stream) {
    const [addresses, policies] = [await talk.heard(), await talk.heard()];
    echoed.push(addresses.initialResourceVersions, policies.initialResourceVersions);
    if (stream > 0) {
      await forever(talk);
      return;
    }
    yield { typeUrl: ADDRESS, nonce: '1', resources: [workload('a'), workload('b')] };
    yield { typeUrl: POLICY, nonce: '2', resources: [policy('p')] };
    await talk.answer(POLICY, '2');
    throw rpcRefusal('UNAVAILABLE', 'restarting');
  });
  await using server = await serve(script);
  await using agent = subject(localhost(server));
  await agent.until(() => echoed.length === 4, 'a second stream');
  assert.deepEqual(echoed.slice(0, 2), [{}, {}]);
  assert.deepEqual(echoed.slice(2), [{ a: workload('a').version, b: workload('b').version }, { 'shop/p': '' }]);
  assert.deepEqual([...agent.index.workloads.all()].length, 2);
  assert.deepEqual(
    agent.counted.filter((text) => text.startsWith('ended')),
    ['ended Error'],
  );
});

test('a server that is away for a while is found again; what changed meanwhile arrives', async () => {
  const serving = (uid: string) =>
    scripted(async function* (talk) {
      yield { typeUrl: ADDRESS, nonce: 'a', resources: [workload(uid)] };
      yield empty;
      await forever(talk);
    });
  const first = await serve(serving('before'));
  await using agent = subject(localhost(first));
  await agent.until(() => agent.isReady, 'readiness');
  const { port } = first;
  await first.stop(0);
  await agent.until(() => agent.counted.includes('ended ConnectionError'), 'a refused connection');
  assert.equal(agent.index.workloads.byUid('before')?.name, 'before');
  assert.match(agent.client.status.lastError ?? '', /cannot connect: connect ECONNREFUSED/);
  await using _second = await serve(serving('after'), { listen: loopback(certificate, port) });
  await agent.until(() => agent.index.workloads.byUid('after') !== undefined, 'the new workload');
  assert.equal(agent.client.status.lastError, undefined);
});

test('a response with one bad resource changes nothing and is refused with names and reasons; the old state serves', async () => {
  const nack = Promise.withResolvers<DeltaDiscoveryRequest>();
  const script = scripted(async function* (talk) {
    yield { typeUrl: ADDRESS, nonce: '1', resources: [workload('a', { node: 'old' })] };
    yield empty;
    await talk.answer(POLICY, 'p');
    const resources = [
      workload('a', { node: 'new' }),
      workload('bad', { tunnelProtocol: 2 }),
      workload('x', { uid: '' }),
    ];
    yield { typeUrl: ADDRESS, nonce: '2', resources, removedResources: ['a'] };
    nack.resolve(await talk.answer(ADDRESS, '2'));
    await forever(talk);
  });
  await using server = await serve(script);
  await using agent = subject(localhost(server));
  const { errorDetail } = await nack.promise;
  assert.equal(errorDetail?.message, 'bad: tunnel_protocol: value 2 is not known here; x: uid: is empty');
  assert.equal(agent.updates.length, 2);
  assert.equal(agent.index.workloads.byUid('a')?.node, 'old');
  assert.deepEqual([agent.isReady, agent.client.status.isBehind], [true, true]);
  assert.equal(agent.client.status.lastError, `an update was refused: ${errorDetail?.message}`);
  const errors = agent.lines.filter(({ level }) => level === 'error');
  assert.equal(errors.length, 1);
  assert.equal(errors[0]?.fields['error'], errorDetail?.message);
  assert.deepEqual(
    agent.counted.filter((text) => text.startsWith('rejected')),
    [`rejected ${ADDRESS}`],
  );
});

test('after a refused response a new stream brings what was lost with it', async () => {
  const script = scripted(async function* (talk, stream) {
    await talk.heard();
    if (stream === 0) {
      yield { typeUrl: ADDRESS, nonce: '1', resources: [workload('lost'), workload('bad', { status: 9 as never })] };
      await talk.answer(ADDRESS, '1');
      yield { typeUrl: ADDRESS, nonce: '2', resources: [workload('bad')] };
    } else {
      yield { typeUrl: ADDRESS, nonce: '3', resources: [workload('lost')] };
    }
    yield empty;
    await forever(talk);
  });
  await using server = await serve(script);
  await using agent = subject(localhost(server));
  await agent.until(() => agent.isReady, 'readiness');
  assert.deepEqual([...agent.index.workloads.all()].map(({ uid }) => uid).toSorted(), ['bad', 'lost']);
  assert.equal(agent.client.status.lastError, undefined);
  assert.deepEqual(
    agent.counted.filter((text) => text.startsWith('ended')),
    [],
  );
});

test('a new policy that cannot be read refuses whom it selects, an old one stays in force; both end with a good version', async () => {
  const go = Promise.withResolvers<void>();
  const bad = (name: string) => policy(name, { groups: [{ rules: [{ matches: [{ principals: [{}] }] }] }] });
  const script = scripted(async function* (talk) {
    yield { typeUrl: POLICY, nonce: '1', resources: [policy('known')] };
    await talk.answer(POLICY, '1');
    yield { typeUrl: POLICY, nonce: '2', resources: [bad('known'), bad('new'), policy('good')] };
    await talk.answer(POLICY, '2');
    await go.promise;
    yield { typeUrl: POLICY, nonce: '3', resources: [policy('new')] };
    await forever(talk);
  });
  await using server = await serve(script);
  await using agent = subject(localhost(server));
  const names = () => ({
    accepted: [...agent.index.policies.accepted()].map(({ name }) => name),
    rejected: [...agent.index.policies.rejected()].map(({ name }) => name),
  });
  await agent.until(() => names().rejected.length > 0, 'the rejected policy');
  assert.deepEqual(names(), { accepted: ['known'], rejected: ['new'] });
  go.resolve();
  await agent.until(() => names().rejected.length === 0, 'the good version');
  assert.deepEqual(names().accepted.toSorted(), ['known', 'new']);
});

test('what is no response at all ends the stream and is told', async () => {
  const script = scripted(async function* (talk, stream) {
    if (stream === 0) yield { typeUrl: ADDRESS, nonce: '1', resources: [workload('a')] };
    yield empty;
    await forever(talk);
  });
  // The second message of the first stream is cut on its way.
  let isCut = false;
  const [method] = script.methods;
  assert(method !== undefined);
  const { responseSerialize } = method.definition;
  const broken = {
    methods: [
      {
        ...method,
        definition: {
          ...method.definition,
          responseSerialize: (message: unknown) => {
            const bytes = responseSerialize(message);
            if (isCut) return bytes;
            isCut = true;
            return bytes.subarray(0, -1);
          },
        },
      },
    ],
  };
  await using server = await serve(broken);
  await using agent = subject(localhost(server));
  await agent.until(() => agent.counted.includes('ended Error'), 'the end of the stream');
  assert.match(
    String(agent.lines.find(({ level }) => level === 'warn')?.fields['error']),
    /xDS response: premature EOF/,
  );
});

test('a response of a type nobody asked for is left alone', async () => {
  const after = Promise.withResolvers<DeltaDiscoveryRequest>();
  const script = scripted(async function* (talk) {
    await talk.heard();
    await talk.heard();
    yield { typeUrl: 'type.googleapis.com/envoy.config.cluster.v3.Cluster', nonce: 'c' };
    yield { typeUrl: ADDRESS, nonce: 'a' };
    after.resolve(await talk.heard());
    await forever(talk);
  });
  await using server = await serve(script);
  await using agent = subject(localhost(server));
  // An answer would count as a subscription.
  assert.equal((await after.promise).responseNonce, 'a');
  assert.equal(agent.lines.filter(({ level }) => level === 'warn').length, 1);
});

test('a server that refuses for ever is asked less and less often, and logged once', async () => {
  let asked = 0;
  const refusing = scripted(async function* ({ peer }) {
    asked += 1;
    if (peer !== '') throw rpcRefusal('PERMISSION_DENIED', 'not your namespace');
    yield empty;
  });
  await using server = await serve(refusing);
  await using agent = subject(localhost(server));
  await agent.until(() => agent.counted.filter((text) => text === 'ended Error').length >= 5, 'five refusals');
  const pauses = agent.lines.filter(({ fields }) => fields['retryMs'] !== undefined);
  assert.deepEqual(
    pauses.map(({ level, message }) => `${level} ${message}`),
    ['warn XDS client error'],
  );
  assert.match(agent.client.status.lastError ?? '', /not your namespace \(PERMISSION_DENIED\)/);
  assert(asked >= 5);
});

test('a server that takes each stream and ends it is not courted in a loop', async () => {
  const startedMs = performance.now();
  const script = scripted(async function* () {
    yield empty;
  });
  await using server = await serve(script);
  await using agent = subject(localhost(server));
  await agent.until(() => agent.counted.filter((text) => text === 'ended Complete').length >= 7, 'seven ends');
  // 10 ms doubled six times, less 30 %: without the doubling it would be 60 ms.
  assert(performance.now() - startedMs > 400);
});

test('a client that stops ends its stream and says nothing', async () => {
  const gone = Promise.withResolvers<void>();
  const script = scripted(async function* (talk) {
    yield empty;
    await forever(talk);
    gone.resolve();
  });
  await using server = await serve(script);
  {
    await using agent = subject(localhost(server));
    await agent.until(() => agent.client.status.isConnected, 'a connection');
  }
  await gone.promise;
});

test('the server may close at the end of an age: the next stream takes over without a word', async () => {
  const script = scripted(async function* (talk) {
    yield { typeUrl: ADDRESS, nonce: 'a', resources: [workload('w')] };
    yield empty;
    await forever(talk);
  });
  await using server = await serve(script, { maxConnectionAge: { ageMs: 50, graceMs: 50 } });
  await using agent = subject(localhost(server));
  await agent.until(() => agent.counted.filter((text) => text === 'connected true').length >= 3, 'three streams');
  assert.deepEqual(agent.counted.filter((text) => text.startsWith('ended')).slice(0, 2), [
    'ended Reconnect',
    'ended Reconnect',
  ]);
  assert.deepEqual(
    agent.lines.filter(({ level }) => level === 'warn'),
    [],
  );
});
