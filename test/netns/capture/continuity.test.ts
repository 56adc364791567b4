import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { dialFrom, readFrom, serveIn, skipWithoutRoot, TestNetns } from '../../support/netns.ts';
import { CaptureAgent, isRedirected, podOf, podWithApp } from './capture-agent.ts';

const privileged = { skip: skipWithoutRoot, timeout: 90_000 };

test(
  'a stopped agent leaves the pod refused, not plaintext; the next one takes it up as it is',
  privileged,
  async () => {
    await using scene = await podWithApp();
    const first = new CaptureAgent();
    await first.enrol(scene.pod.netns);
    await first.manager.stop('graceful');
    const toFar = () => readFrom(scene.pod.netns, { ip: scene.neighbour.ip4, port: scene.far.port });
    assert.match(await toFar(), /^refused/);
    const handles = await scene.pod.netns.exec(['nft', '-a', 'list', 'ruleset']);

    await using second = new CaptureAgent();
    await second.enrol(scene.pod.netns);

    assert.equal(await toFar(), '15001');
    assert.equal(
      (await scene.pod.netns.exec(['nft', '-a', 'list', 'ruleset'])).replaceAll(/packets \d+ bytes \d+/g, ''),
      handles.replaceAll(/packets \d+ bytes \d+/g, ''),
    );
    assert.deepEqual(first.events, ['started', 'stop graceful', 'stopped']);
  },
);

test('two agents with the same pod (hand-over) leave it captured when the first stops', privileged, async () => {
  await using scene = await podWithApp();
  const first = new CaptureAgent();
  await first.enrol(scene.pod.netns);
  await using second = new CaptureAgent();
  await second.enrol(scene.pod.netns);
  await first.manager.stop('immediate');

  assert.equal(await readFrom(scene.pod.netns, { ip: scene.neighbour.ip4, port: scene.far.port }), '15001');
});

test(
  'a pod that left before it was ever captured is cleaned of the rules of an earlier agent',
  privileged,
  async () => {
    await using netns = await TestNetns.create();
    const first = new CaptureAgent();
    await first.enrol(netns);
    await first.manager.stop('immediate');
    await using _taken = await serveIn(netns, { port: 15_001 }, (socket) => socket.end());
    await using second = new CaptureAgent();
    void second.sink?.upsert(podOf(netns));
    second.sink?.synced();
    await second.until(() => second.manager.statuses()[0]?.lastError !== undefined);

    void second.sink?.remove(netns.name);
    await second.until(() => second.manager.readiness().isReady);
    await second.manager.stop('immediate');

    assert.equal(await isRedirected(netns), false);
  },
);

function journalIn(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'culvert-journal-'));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  return join(directory, 'captured.json');
}

test('a pod that left while no agent ran is freed by the next one, the others stay', privileged, async (t) => {
  await using gone = await TestNetns.create();
  await using stays = await TestNetns.create();
  const path = journalIn(t);
  const first = new CaptureAgent(path);
  await first.enrol(gone);
  await first.enrol(stays);
  await first.manager.stop('immediate');

  await using second = new CaptureAgent(path);
  await second.enrol(stays);
  await second.manager.stop('immediate');

  assert.deepEqual([await isRedirected(gone), await isRedirected(stays)], [false, true]);
  assert.deepEqual(
    [readFileSync(path, 'utf8').includes(gone.name), readFileSync(path, 'utf8').includes(stays.name)],
    [false, true],
  );
});

test(
  'without a first complete list nobody is freed, and a spoilt journal keeps no agent from starting',
  privileged,
  async (t) => {
    await using netns = await TestNetns.create();
    const path = journalIn(t);
    const first = new CaptureAgent(path);
    await first.enrol(netns);
    await first.manager.stop('immediate');
    const second = new CaptureAgent(path);
    await second.manager.stop('immediate');
    assert.equal(await isRedirected(netns), true);

    writeFileSync(path, '{"pods": [{');
    await using third = new CaptureAgent(path);
    await third.enrol(netns);
    assert.equal(await isRedirected(netns), true);
  },
);

test('new connections never find a closed door while pods are captured and released', privileged, async () => {
  await using scene = await podWithApp();
  await using agent = new CaptureAgent();
  const seen = new Set<string>();
  let isOver = false;
  const knocking = (async () => {
    while (!isOver) seen.add(await readFrom(scene.pod.netns, { ip: scene.neighbour.ip4, port: scene.far.port }));
  })();

  for (let round = 0; round < 8; round++) {
    const { uid } = await agent.enrol(scene.pod.netns);
    void agent.sink?.remove(uid);
    await agent.until(
      () => agent.manager.statuses().length === 0 && agent.events.filter((e) => e === 'stopped').length > round,
    );
  }
  isOver = true;
  await knocking;

  // Empty: the connection was being made at the very moment of the change, and was reset.
  assert.deepEqual(
    [...seen].filter((answer) => !['far', '15001', ''].includes(answer)),
    [],
  );
});

test(
  'an application that only waits learns that its captured connection ends with the capture',
  privileged,
  async () => {
    await using scene = await podWithApp();
    await using agent = new CaptureAgent();
    const { uid } = await agent.enrol(scene.pod.netns);
    const socket = await dialFrom(scene.pod.netns, { ip: scene.neighbour.ip4, port: 7 });
    await once(socket.resume(), 'data');

    void agent.sink?.remove(uid);
    await once(socket, 'end');
    socket.destroy();
  },
);

test(
  'connections from before the capture end at once on both sides, those within the pod go on',
  privileged,
  async () => {
    await using scene = await podWithApp();
    const { pod, neighbour } = scene;
    await using quiet = await serveIn(neighbour.netns, {}, (socket) => socket.resume());
    await using inside = await serveIn(pod.netns, {}, (socket) => socket.resume().write('hello'));
    const out4 = await dialFrom(pod.netns, { ip: neighbour.ip4, port: quiet.port });
    const out6 = await dialFrom(pod.netns, { ip: neighbour.ip6, port: quiet.port });
    const into = await dialFrom(neighbour.netns, { ip: pod.ip4, port: inside.port });
    const within = await dialFrom(pod.netns, { ip: pod.ip4, port: inside.port });
    const closed = Promise.all(
      [out4, out6, into].map((socket) => once(socket.resume(), 'close').catch(() => undefined)),
    );

    await using agent = new CaptureAgent();
    await agent.enrol(pod.netns);

    await closed;
    const [greeting] = (await once(within.resume(), 'data')) as [Buffer];
    assert.equal(greeting.toString(), 'hello');
    within.destroy();
  },
);

test(
  'what slips out while rules are gone is closed by the repair, what the agent carries is not',
  privileged,
  async () => {
    await using scene = await podWithApp();
    await using agent = new CaptureAgent();
    await agent.enrol(scene.pod.netns);
    await using quiet = await serveIn(scene.neighbour.netns, {}, (socket) => socket.resume());
    const carried = await dialFrom(scene.pod.netns, { ip: scene.neighbour.ip4, port: 7 });
    await scene.pod.netns.exec(['nft', 'flush', 'ruleset']);
    const slipped = await dialFrom(scene.pod.netns, { ip: scene.neighbour.ip4, port: quiet.port });
    const closed = once(slipped.resume(), 'close').catch(() => undefined);

    agent.clock.advance(5_000);
    await closed;
    await agent.until(() => agent.manager.statuses()[0]?.repairs === 1);

    assert.equal(carried.destroyed, false);
    carried.destroy();
  },
);
