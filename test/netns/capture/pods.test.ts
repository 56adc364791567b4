import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import type net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { silentLogger } from '../../../src/base/log.ts';
import type { CaptureEvent, ProxySet, StopMode } from '../../../src/capture/capture-contract.ts';
import { CaptureJournal } from '../../../src/capture/capture-journal.ts';
import type { CapturedPod, PodSink } from '../../../src/capture/pod-source.ts';
import { PodManager } from '../../../src/capture/pods.ts';
import { createRedirection } from '../../../src/capture/redirect.ts';
import { linuxSys } from '../../../src/sys/linux.ts';
import type { Netns } from '../../../src/sys/sys.ts';
import { listenOn, socketFd } from '../../../src/sys/tcp.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { dialFrom, readFrom, serveIn, skipWithoutRoot, TestNetns, Wire } from '../../support/netns.ts';

const privileged = { skip: skipWithoutRoot, timeout: 20_000 };
const MARK = 0x539;

/** A manager with a source in the test's hands, and proxies that answer on the three ports with the port's number. */
class Agent implements AsyncDisposable {
  readonly clock = new FakeClock();
  readonly events: (CaptureEvent | `stop ${StopMode}`)[] = [];
  readonly manager: PodManager;
  readonly #wake = new Set<() => void>();
  readonly #open = new Set<net.Socket>();
  sink: PodSink | undefined;

  constructor(journalPath?: string) {
    const deps = { sys: linuxSys, clock: this.clock, log: silentLogger };
    this.manager = new PodManager({
      sys: linuxSys,
      source: {
        start: (sink) => {
          this.sink = sink;
          return { [Symbol.dispose]() {} };
        },
      },
      startProxy: (_pod, netns) => this.#proxy(netns),
      redirection: createRedirection(linuxSys),
      clock: this.clock,
      log: silentLogger,
      ...(journalPath === undefined ? {} : { journal: new CaptureJournal(journalPath, deps) }),
      onEvent: (event) => this.events.push(event),
      onChange: () => {
        for (const wake of this.#wake) wake();
      },
    });
    this.manager.start();
  }

  /** Resolves when `isTrue` first holds after some change. */
  async until(isTrue: () => boolean): Promise<void> {
    while (!isTrue()) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#wake.add(resolve);
      await promise;
      this.#wake.delete(resolve);
    }
  }

  async enrol(netns: TestNetns, changes: Partial<CapturedPod> = {}): Promise<CapturedPod> {
    const pod = podOf(netns, changes);
    this.sink?.upsert(pod);
    this.sink?.synced();
    await this.until(() => this.manager.readiness().isReady);
    return pod;
  }

  async #proxy(netns: Netns): Promise<ProxySet> {
    const fds: number[] = [];
    try {
      for (const port of [15_001, 15_006, 15_008]) {
        fds.push(linuxSys.listenTcp(netns, { address: '::', port, mark: MARK, isReusePort: true }).fd);
      }
    } catch (error) {
      for (const fd of fds) linuxSys.close(fd);
      throw error;
    }
    const servers = fds.map((fd) => listenOn(fd, { onConnection: (socket) => this.#serve(socket) }));
    return {
      stop: async (mode) => {
        this.events.push(`stop ${mode}`);
        for (const socket of this.#open) socket.destroy();
        await Promise.all(servers.map((server) => once(server.close(), 'close')));
      },
    };
  }

  /** Says the port and ends; to a client of port 7 it says it and stays. */
  #serve(socket: net.Socket): void {
    this.#open.add(socket);
    socket.once('close', () => this.#open.delete(socket)).resume();
    const original = linuxSys.originalDestination(socketFd(socket) ?? -1);
    if (original?.port === 7) socket.write('7');
    else socket.end(String(socket.localPort));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.manager.stop('immediate');
  }
}

function podOf(netns: TestNetns, changes: Partial<CapturedPod> = {}): CapturedPod {
  return {
    uid: netns.name,
    name: netns.name,
    namespace: 'default',
    serviceAccount: 'default',
    netnsPath: netns.path,
    options: { isIngressMode: false, rerouteInterfaces: [] },
    ...changes,
  };
}

/** A pod with an application on `port` that answers `app`, next to a neighbour. */
async function podWithApp(families: 'v4' | 'v6' | 'dual' = 'dual') {
  await using undo = new AsyncDisposableStack();
  const wire = undo.use(await Wire.create(families));
  const [pod, neighbour] = [await wire.addPod(), await wire.addPod()];
  const app = undo.use(await serveIn(pod.netns, {}, (socket) => socket.end('app')));
  const far = undo.use(await serveIn(neighbour.netns, {}, (socket) => socket.end('far')));
  const cleanup = undo.move();
  return { pod, neighbour, app, far, [Symbol.asyncDispose]: () => cleanup.disposeAsync() };
}

async function isRedirected(netns: TestNetns): Promise<boolean> {
  return (await netns.exec(['nft', 'list', 'ruleset'])).includes('istio-ambient-nat');
}

for (const families of ['v4', 'v6', 'dual'] as const) {
  test(`a pod is captured while its application runs, and released again (${families})`, privileged, async () => {
    await using scene = await podWithApp(families);
    await using agent = new Agent();
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

    agent.sink?.remove(uid);
    await agent.until(() => agent.events.includes('stopped'));
    assert.deepEqual(await look(), direct);
    assert.equal(await isRedirected(pod.netns), false);
  });
}

test('loopback and the own address stay with the application, 15008 is reached directly', privileged, async () => {
  await using scene = await podWithApp();
  await using agent = new Agent();
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
  await using agent = new Agent();
  await agent.enrol(scene.pod.netns, { options: { isIngressMode: true, rerouteInterfaces: [] } });

  assert.equal(await readFrom(scene.neighbour.netns, { ip: scene.pod.ip4, port: scene.app.port }), 'app');
  assert.equal(await readFrom(scene.pod.netns, { ip: scene.neighbour.ip4, port: scene.far.port }), '15001');
});

test('a changed option is applied without a new proxy', privileged, async () => {
  await using scene = await podWithApp();
  await using agent = new Agent();
  const pod = await agent.enrol(scene.pod.netns);

  agent.sink?.upsert({ ...pod, options: { isIngressMode: true, rerouteInterfaces: [] } });
  await agent.until(() => agent.manager.statuses()[0]?.pod.options.isIngressMode === true);
  agent.clock.advance(5_000);
  await agent.until(() => agent.manager.readiness().isReady);
  await agent.manager.stop('immediate');

  assert.equal(await readFrom(scene.neighbour.netns, { ip: scene.pod.ip4, port: scene.app.port }), 'app');
  assert.equal(agent.events.filter((event) => event === 'started').length, 1);
  assert.equal(agent.manager.statuses()[0]?.repairs, 0);
});

test('redirection that something removed is back after one interval and counted', privileged, async () => {
  await using scene = await podWithApp();
  await using agent = new Agent();
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

test(
  'a stopped agent leaves the pod refused, not plaintext; the next one takes it up as it is',
  privileged,
  async () => {
    await using scene = await podWithApp();
    const first = new Agent();
    await first.enrol(scene.pod.netns);
    await first.manager.stop('graceful');
    const toFar = () => readFrom(scene.pod.netns, { ip: scene.neighbour.ip4, port: scene.far.port });
    assert.match(await toFar(), /^refused/);
    const handles = await scene.pod.netns.exec(['nft', '-a', 'list', 'ruleset']);

    await using second = new Agent();
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
  const first = new Agent();
  await first.enrol(scene.pod.netns);
  await using second = new Agent();
  await second.enrol(scene.pod.netns);
  await first.manager.stop('immediate');

  assert.equal(await readFrom(scene.pod.netns, { ip: scene.neighbour.ip4, port: scene.far.port }), '15001');
});

test('a taken port keeps the pod pending with the reason, uncaptured, until it is free', privileged, async () => {
  await using scene = await podWithApp();
  await using agent = new Agent();
  const { netns } = scene.pod;
  const taken = await serveIn(netns, { port: 15_006 }, (socket) => socket.end());
  const pod = podOf(netns);
  agent.sink?.upsert(pod);
  agent.sink?.synced();
  await agent.until(() => agent.manager.statuses()[0]?.lastError !== undefined);

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
  await using agent = new Agent();
  const pod = { ...podOf(await goneNetns()), uid: 'gone' };
  agent.sink?.upsert(pod);
  agent.sink?.synced();
  await agent.until(() => agent.manager.statuses()[0]?.lastError !== undefined);
  assert.equal(agent.manager.statuses()[0]?.lastError?.code, 'CV-NETNS');

  agent.sink?.remove('gone');
  await agent.until(() => agent.manager.readiness().isReady);
  assert.deepEqual(agent.manager.statuses(), []);
});

async function goneNetns(): Promise<TestNetns> {
  const netns = await TestNetns.create();
  await netns[Symbol.asyncDispose]();
  return netns;
}

test('a namespace that vanishes under a captured pod ends its proxy at once', privileged, async () => {
  await using agent = new Agent();
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
    await using agent = new Agent();
    await using before = await TestNetns.create();
    await using after = await TestNetns.create();
    const pod = await agent.enrol(before);

    agent.sink?.upsert({ ...pod, netnsPath: after.path });
    await agent.until(() => agent.events.length === 4 && agent.manager.readiness().isReady);

    assert.deepEqual(agent.events, ['started', 'stop immediate', 'stopped', 'started']);
    assert.deepEqual([await isRedirected(before), await isRedirected(after)], [true, true]);
  },
);

test('the own namespace of the agent is never captured', privileged, async () => {
  await using agent = new Agent();
  await using netns = await TestNetns.create();
  agent.sink?.upsert({ ...podOf(netns), netnsPath: '/proc/self/ns/net' });
  await agent.until(() => agent.manager.statuses()[0]?.lastError !== undefined);

  assert.match(agent.manager.statuses()[0]?.lastError?.message ?? '', /namespace of the agent/);
  assert.deepEqual(agent.events, []);
});

test(
  'one namespace is one pod: the second claim waits until the first is gone, without a gap in between',
  privileged,
  async () => {
    await using agent = new Agent();
    await using netns = await TestNetns.create();
    await agent.enrol(netns, { uid: 'first' });
    agent.sink?.upsert(podOf(netns, { uid: 'second' }));
    await agent.until(() => agent.manager.statuses()[1]?.lastError !== undefined);
    assert.match(agent.manager.statuses()[1]?.lastError?.message ?? '', /captured as pod first/);
    const handles = await netns.exec(['nft', '-a', 'list', 'ruleset']);

    agent.sink?.remove('first');
    await agent.until(() => agent.manager.readiness().isReady);

    assert.deepEqual(
      agent.manager.statuses().map(({ pod }) => pod.uid),
      ['second'],
    );
    assert.equal(await netns.exec(['nft', '-a', 'list', 'ruleset']), handles);
  },
);

test(
  'a pod that left before it was ever captured is cleaned of the rules of an earlier agent',
  privileged,
  async () => {
    await using netns = await TestNetns.create();
    const first = new Agent();
    await first.enrol(netns);
    await first.manager.stop('immediate');
    await using _taken = await serveIn(netns, { port: 15_001 }, (socket) => socket.end());
    await using second = new Agent();
    second.sink?.upsert(podOf(netns));
    second.sink?.synced();
    await second.until(() => second.manager.statuses()[0]?.lastError !== undefined);

    second.sink?.remove(netns.name);
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
  const first = new Agent(path);
  await first.enrol(gone);
  await first.enrol(stays);
  await first.manager.stop('immediate');

  await using second = new Agent(path);
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
    const first = new Agent(path);
    await first.enrol(netns);
    await first.manager.stop('immediate');
    const second = new Agent(path);
    await second.manager.stop('immediate');
    assert.equal(await isRedirected(netns), true);

    writeFileSync(path, '{"pods": [{');
    await using third = new Agent(path);
    await third.enrol(netns);
    assert.equal(await isRedirected(netns), true);
  },
);

test('new connections never find a closed door while pods are captured and released', privileged, async () => {
  await using scene = await podWithApp();
  await using agent = new Agent();
  const seen = new Set<string>();
  let isOver = false;
  const knocking = (async () => {
    while (!isOver) seen.add(await readFrom(scene.pod.netns, { ip: scene.neighbour.ip4, port: scene.far.port }));
  })();

  for (let round = 0; round < 8; round++) {
    const { uid } = await agent.enrol(scene.pod.netns);
    agent.sink?.remove(uid);
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
    await using agent = new Agent();
    const { uid } = await agent.enrol(scene.pod.netns);
    const socket = await dialFrom(scene.pod.netns, { ip: scene.neighbour.ip4, port: 7 });
    await once(socket.resume(), 'data');

    agent.sink?.remove(uid);
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

    await using agent = new Agent();
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
    await using agent = new Agent();
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

test('twenty pods at once are captured, a few at a time', privileged, async () => {
  await using undo = new AsyncDisposableStack();
  const pods = await Promise.all(Array.from({ length: 20 }, async () => undo.use(await TestNetns.create())));
  await using agent = new Agent();
  for (const netns of pods) agent.sink?.upsert(podOf(netns));
  agent.sink?.synced();
  await agent.until(() => agent.manager.readiness().isReady);

  const redirected = await Promise.all(pods.map(isRedirected));
  assert.deepEqual(
    redirected,
    pods.map(() => true),
  );
});
