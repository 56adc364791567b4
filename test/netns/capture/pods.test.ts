import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readFrom, serveIn, skipWithoutRoot, TestNetns } from '../../support/netns.ts';
import { CaptureAgent, isRedirected, podOf, podWithApp } from './capture-agent.ts';

const privileged = { skip: skipWithoutRoot, timeout: 90_000 };

for (const families of ['v4', 'v6', 'dual'] as const) {
  test(`a pod is captured while its application runs, and released again (${families})`, privileged, async () => {
    await using scene = await podWithApp(families);
    await using agent = new CaptureAgent();
    const { pod, neighbour } = scene;
    const addresses = [pod.ip4, pod.ip6].filter((ip) => ip !== '');
    const others = [neighbour.ip4, neighbour.ip6].filter((ip) => ip !== '');
    const look = async () => ({
      in: await Promise.all(addresses.map((ip) => readFrom(neighbour.netns, { ip, port: scene.app.port }))),
      out: await Promise.all(others.map((ip) => readFrom(pod.netns, { ip, port: scene.far.port }))),
    });
    const direct = { in: addresses.map(() => 'app'), out: others.map(() => 'far') };
    assert.deepEqual(await look(), direct);

    const { uid } = await agent.enrol(pod.netns);
    assert.deepEqual(await look(), { in: addresses.map(() => '15006'), out: others.map(() => '15001') });

    void agent.sink?.remove(uid);
    await agent.until(() => agent.events.includes('stopped'));
    assert.deepEqual(await look(), direct);
    assert.equal(await isRedirected(pod.netns), false);
  });
}

test('loopback and the own address stay with the application, 15008 is reached directly', privileged, async () => {
  await using scene = await podWithApp();
  await using agent = new CaptureAgent();
  await agent.enrol(scene.pod.netns);
  const { netns, ip4, ip6 } = scene.pod;

  for (const ip of ['127.0.0.1', '::1', '127.0.0.2', ip4, ip6]) {
    assert.equal(await readFrom(netns, { ip, port: scene.app.port }), 'app', ip);
  }
  assert.equal(await readFrom(scene.neighbour.netns, { ip: ip4, port: 15_008 }), '15008');
  assert.equal(await readFrom(scene.neighbour.netns, { ip: ip6, port: 15_008 }), '15008');
});

test('in ingress mode inbound plaintext reaches the application and outbound is captured', privileged, async () => {
  await using scene = await podWithApp();
  await using agent = new CaptureAgent();
  await agent.enrol(scene.pod.netns, { options: { isIngressMode: true, rerouteInterfaces: [] } });

  assert.equal(await readFrom(scene.neighbour.netns, { ip: scene.pod.ip4, port: scene.app.port }), 'app');
  assert.equal(await readFrom(scene.pod.netns, { ip: scene.neighbour.ip4, port: scene.far.port }), '15001');
});

test('a changed option is applied without a new proxy', privileged, async () => {
  await using scene = await podWithApp();
  await using agent = new CaptureAgent();
  const pod = await agent.enrol(scene.pod.netns);

  await agent.sink?.upsert({ ...pod, options: { isIngressMode: true, rerouteInterfaces: [] } });
  await agent.manager.stop('immediate');

  assert.equal(await readFrom(scene.neighbour.netns, { ip: scene.pod.ip4, port: scene.app.port }), 'app');
  assert.equal(agent.events.filter((event) => event === 'started').length, 1);
  assert.equal(agent.manager.statuses()[0]?.repairs, 0);
});

test('redirection that something removed is back after one interval and counted', privileged, async () => {
  await using scene = await podWithApp();
  await using agent = new CaptureAgent();
  await agent.enrol(scene.pod.netns);
  const toFar = () => readFrom(scene.pod.netns, { ip: scene.neighbour.ip4, port: scene.far.port });

  for (const [round, argv] of [
    ['nft', 'flush', 'ruleset'],
    ['ip', 'rule', 'del', 'pref', '32764'],
  ].entries()) {
    await scene.pod.netns.exec(argv);
    agent.clock.advance(5_000);
    await agent.until(() => agent.manager.statuses()[0]?.repairs === round + 1);
    assert.equal(await toFar(), '15001');
  }
  assert.match(await scene.pod.netns.exec(['ip', 'rule']), /32764:.*fwmark 0x111\/0xfff lookup 100/);
});

test('a taken port keeps the pod pending with the reason, uncaptured, until it is free', privileged, async () => {
  await using scene = await podWithApp();
  await using agent = new CaptureAgent();
  const { netns } = scene.pod;
  const taken = await serveIn(netns, { port: 15_006 }, (socket) => socket.end());
  const pod = podOf(netns);
  const captured = agent.sink?.upsert(pod);
  agent.sink?.synced();
  assert.equal((await captured)?.code, 'CV-BIND');

  const [status] = agent.manager.statuses();
  assert.equal(status?.state, 'Pending');
  assert.equal(status?.lastError?.code, 'CV-BIND');
  assert.match(status?.lastError?.message ?? '', /EADDRINUSE/);
  assert.equal(agent.manager.readiness().isReady, false);
  assert.equal(await isRedirected(netns), false);

  await taken[Symbol.asyncDispose]();
  agent.clock.advance(5_000);
  await agent.until(() => agent.manager.readiness().isReady);
  assert.equal(await isRedirected(netns), true);
});

test('a pod whose namespace vanished stays pending and leaves with its entry', privileged, async () => {
  await using agent = new CaptureAgent();
  const pod = { ...podOf(await goneNetns()), uid: 'gone' };
  agent.sink?.synced();
  assert.equal((await agent.sink?.upsert(pod))?.code, 'CV-NETNS');
  assert.equal(agent.manager.statuses()[0]?.lastError?.code, 'CV-NETNS');

  void agent.sink?.remove('gone');
  await agent.until(() => agent.manager.readiness().isReady);
  assert.deepEqual(agent.manager.statuses(), []);
});

async function goneNetns(): Promise<TestNetns> {
  const netns = await TestNetns.create();
  await netns[Symbol.asyncDispose]();
  return netns;
}

test('a namespace that vanishes under a captured pod ends its proxy at once', privileged, async () => {
  await using agent = new CaptureAgent();
  const netns = await TestNetns.create();
  await agent.enrol(netns);
  await netns[Symbol.asyncDispose]();

  agent.clock.advance(5_000);
  await agent.until(() => agent.events.includes('stopped'));
  await agent.until(() => agent.manager.statuses()[0]?.state === 'Pending');
  assert.deepEqual(agent.events, ['started', 'stop immediate', 'stopped']);
});

test(
  'the same pod in another namespace: the old proxy ends at once, the old rules stay, a new one starts',
  privileged,
  async () => {
    await using agent = new CaptureAgent();
    await using before = await TestNetns.create();
    await using after = await TestNetns.create();
    const pod = await agent.enrol(before);

    assert.equal(await agent.sink?.upsert({ ...pod, netnsPath: after.path }), undefined);

    assert.deepEqual(agent.events, ['started', 'stop immediate', 'stopped', 'started']);
    assert.deepEqual([await isRedirected(before), await isRedirected(after)], [true, true]);
  },
);

test('the own namespace of the agent is never captured', privileged, async () => {
  await using agent = new CaptureAgent();
  await using netns = await TestNetns.create();
  const error = await agent.sink?.upsert({ ...podOf(netns), netnsPath: '/proc/self/ns/net' });

  assert.match(error?.message ?? '', /namespace of the agent/);
  assert.deepEqual(agent.events, []);
});

test(
  'one namespace is one pod: the second claim waits until the first is gone, without a gap in between',
  privileged,
  async () => {
    await using agent = new CaptureAgent();
    await using netns = await TestNetns.create();
    await agent.enrol(netns, { uid: 'first' });
    const error = await agent.sink?.upsert(podOf(netns, { uid: 'second' }));
    assert.match(error?.message ?? '', /captured as pod first/);
    const handles = await netns.exec(['nft', '-a', 'list', 'ruleset']);

    void agent.sink?.remove('first');
    await agent.until(() => agent.manager.readiness().isReady);

    assert.deepEqual(
      agent.manager.statuses().map(({ pod }) => pod.uid),
      ['second'],
    );
    assert.equal(await netns.exec(['nft', '-a', 'list', 'ruleset']), handles);
  },
);

test('twenty pods at once are captured, a few at a time', privileged, async () => {
  await using undo = new AsyncDisposableStack();
  const pods = await Promise.all(Array.from({ length: 20 }, async () => undo.use(await TestNetns.create())));
  await using agent = new CaptureAgent();
  for (const netns of pods) void agent.sink?.upsert(podOf(netns));
  agent.sink?.synced();
  await agent.until(() => agent.manager.readiness().isReady);

  const redirected = await Promise.all(pods.map(isRedirected));
  assert.deepEqual(
    redirected,
    pods.map(() => true),
  );
});
