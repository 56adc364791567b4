import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { packet } from '../../support/cni-connection.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { ZdsNode, type ZdsNodeOptions, ZdsProxy } from './zds-node.ts';

const timed = { timeout: 60_000 };
const DEL = (uid: string) => packet({ kind: 'del', uid });
const KEEP = (uid: string) => packet({ kind: 'keep', uid });
const SNAPSHOT_SENT = packet({ kind: 'snapshot-sent' });

/** A claim about a node, which must leave no descriptor behind. */
function zdsTest(claim: string, body: (node: ZdsNode) => Promise<void>, options: ZdsNodeOptions = {}): void {
  test(claim, timed, async () => {
    // What the process opens once and keeps.
    await onNode(async () => {});
    const before = openFds();
    await onNode((node) => body(node), options);
    assert.equal(openFds(), before, 'descriptors left open');
  });
}

async function onNode(body: (node: ZdsNode) => Promise<void>, options: ZdsNodeOptions = {}): Promise<void> {
  await using node = new ZdsNode(options);
  await body(node);
}

function openFds(): number {
  return readdirSync('/proc/self/fd').length;
}

/** Settles all that is under way but for timers of a fake clock. */
async function settle(): Promise<void> {
  for (let turns = 0; turns < 20; turns += 1) await nextTurn();
}

/** The connection after the snapshot, which told `uids`. */
async function synced(node: ZdsNode, ...uids: readonly string[]) {
  for (const uid of uids) node.cni.know(node.pod(uid));
  const connection = await node.cni.synced();
  await node.proxy.ready();
  return connection;
}

zdsTest('an Add is acknowledged when its listeners stand, and the agent is ready after the snapshot', async (node) => {
  const listening = Promise.withResolvers<void>();
  node.proxy.onStart = () => listening.promise;
  node.cni.know(node.pod('web'));
  await node.proxy.until(() => node.proxy.manager.counts().pending === 1);
  assert.equal(node.proxy.isReady, false);
  assert.deepEqual(node.proxy.requests, []);

  listening.resolve();
  await node.cni.synced();
  await node.proxy.ready();
  assert.deepEqual(node.proxy.running, ['web@web']);
  assert.deepEqual(node.proxy.requests, ['add ok', 'snapshot-sent ok']);
});

zdsTest('the same pod in the same namespace is told again: nothing happens, and the answer is yes', async (node) => {
  const connection = await synced(node, 'web');
  await connection.send(node.add('web'));
  await connection.send(node.add('web'));
  assert.deepEqual(node.proxy.events, ['start web']);
});

zdsTest('the same pod in another namespace: the old proxy ends at once, a new one starts', async (node) => {
  const connection = await synced(node, 'web');
  await connection.send(node.add('web', 'anew'));
  assert.deepEqual(node.proxy.events, ['start web', 'stop web immediate', 'start web']);
  assert.deepEqual(node.proxy.running, ['web@anew']);
});

zdsTest(
  'a pod that cannot start is refused with the reason, keeps the agent unready, and is tried until it works',
  async (node) => {
    let tries = 0;
    node.proxy.onStart = () => {
      tries += 1;
      if (tries < 4) throw new Error('15006 is taken');
    };
    node.cni.know(node.pod('web'));
    const connection = await node.cni.synced();
    assert.deepEqual(connection.snapshotErrors, ['got ack error: failure to start proxy : 15006 is taken']);
    assert.equal(node.proxy.isReady, false);
    assert.deepEqual(
      node.proxy.manager.statuses().map(({ state }) => state),
      ['Pending'],
    );

    await node.proxy.ready();
    assert.deepEqual(node.proxy.running, ['web@web']);
    assert.equal(tries, 4);
    assert.deepEqual(node.proxy.requests, ['add refused', 'snapshot-sent ok'], 'the CNI agent was asked nothing more');
    assert.equal(node.proxy.warnings().length, 1, 'said once, not at each try');
  },
);

zdsTest('a pod that starts keeps nobody unready; one that fails does', async (node) => {
  const connection = await synced(node);
  const listening = Promise.withResolvers<void>();
  node.proxy.onStart = () => listening.promise;
  const added = connection.send(node.add('slow'));
  await node.proxy.until(() => node.proxy.manager.counts().pending === 1);
  assert.equal(node.proxy.isReady, true);
  listening.reject(new Error('no'));
  await assert.rejects(added, /got ack error: failure to start proxy : no/);
  assert.equal(node.proxy.isReady, false);
  await connection.send(DEL('slow'));
  await node.proxy.ready();
});

zdsTest(
  'a pending pod told in another namespace is started there, and the old one is not tried again',
  async (node) => {
    const connection = await synced(node);
    node.proxy.onStart = () => {
      throw new Error('taken');
    };
    await assert.rejects(connection.send(node.add('web', 'old')), /taken/);
    const tried: string[] = [];
    node.proxy.onStart = (uid) => void tried.push(uid);
    await connection.send(node.add('web', 'new'));
    await node.proxy.ready();
    assert.deepEqual(node.proxy.running, ['web@new']);
    assert.deepEqual(tried, ['web']);
  },
);

zdsTest('a pending pod that is deleted is not tried again, and the agent is ready', async (node) => {
  const connection = await synced(node);
  node.proxy.onStart = () => {
    throw new Error('taken');
  };
  await assert.rejects(connection.send(node.add('web')), /taken/);
  assert.equal(node.proxy.isReady, false);
  await connection.send(DEL('web'));
  await node.proxy.ready();
  assert.deepEqual(node.proxy.manager.statuses(), []);
});

zdsTest('a pod is added, deleted and added again; deleting one that is unknown is fine', async (node) => {
  const connection = await synced(node, 'web');
  await connection.send(DEL('web'));
  await connection.send(DEL('never-seen'));
  await node.proxy.until(() => node.proxy.running.length === 0);
  await connection.send(node.add('web'));
  assert.deepEqual(node.proxy.events, ['start web', 'stop web immediate', 'start web']);
});

zdsTest('a Del is acknowledged when all has ended: its namespace may be the next pod’s at once', async (node) => {
  const connection = await synced(node);
  for (let round = 0; round < 20; round += 1) {
    await connection.send(node.add(`pod-${round}`, 'shared'));
    await connection.send(DEL(`pod-${round}`));
  }
  assert.equal(node.proxy.events.length, 40);
  assert.deepEqual(node.proxy.running, []);
});

zdsTest('one namespace is one pod: the second is refused until the first has left', async (node) => {
  const connection = await synced(node, 'web');
  await assert.rejects(connection.send(node.add('twin', 'web')), /failure to start proxy : .* captured as pod web/);
  await connection.send(DEL('web'));
  await node.proxy.ready();
  assert.deepEqual(node.proxy.running, ['twin@web']);
});

zdsTest('a deletion and a new namespace for the same pod in one breath end in the new one', async (node) => {
  const connection = await synced(node, 'web');
  await Promise.all([connection.send(DEL('web')), connection.send(node.add('web', 'anew'))]);
  assert.deepEqual(node.proxy.running, ['web@anew']);
});

zdsTest('before the snapshot is complete, a deletion leaves what runs to the reconciliation', async (node) => {
  await synced(node, 'kept', 'gone');
  node.cni.stop();
  node.cni.hijackNext(async (socket) => {
    await socket.receive(100);
    const before = node.proxy.requests.length;
    for (const message of [DEL('gone'), KEEP('kept'), SNAPSHOT_SENT]) {
      await socket.send(message.data);
      using _ack = await socket.receive(100);
      const isLast = message === SNAPSHOT_SENT;
      assert.equal(node.proxy.running.length, isLast ? 1 : 2);
    }
    assert.deepEqual(node.proxy.requests.slice(before), ['del ok', 'keep ok', 'snapshot-sent ok']);
    done.resolve();
    await socket.receive(100);
  });
  const done = Promise.withResolvers<void>();
  node.cni.start();
  await done.promise;
  assert.deepEqual(node.proxy.running, ['kept@kept']);
});

zdsTest('before the snapshot is complete, a deletion gives up what does not run', async (node) => {
  node.proxy.onStart = () => {
    throw new Error('taken');
  };
  const done = Promise.withResolvers<void>();
  node.cni.hijackNext(async (socket) => {
    using _hello = await socket.receive(100);
    const add = node.add('web');
    await socket.send(add.data, add.fds);
    using _nack = await socket.receive(1_024);
    assert.equal(node.proxy.manager.statuses().length, 1);
    await socket.send(DEL('web').data);
    using _ack = await socket.receive(100);
    assert.deepEqual(node.proxy.manager.statuses(), []);
    done.resolve();
  });
  await done.promise;
});

zdsTest(
  'a new snapshot: who is missing ends, who is kept goes on, who has a new namespace starts anew',
  async (node) => {
    await synced(node, 'missing', 'kept', 'moved', 'same');
    node.proxy.events.length = 0;
    node.cni.stop();
    node.cni.forget('missing');
    node.cni.know({ ...node.pod('kept'), netnsPath: undefined });
    node.cni.know(node.pod('moved', 'elsewhere'));
    node.cni.start();
    await node.cni.synced(1);
    await node.proxy.until(() => node.proxy.events.length === 3);
    assert.deepEqual(node.proxy.events.toSorted(), ['start moved', 'stop missing immediate', 'stop moved immediate']);
    assert.deepEqual(node.proxy.running, ['kept@kept', 'moved@elsewhere', 'same@same']);
  },
);

zdsTest(
  'a pod whose namespace the CNI agent does not know is said to be uncaptured, and holds nobody up',
  async (node) => {
    node.cni.know({ ...node.pod('lost'), netnsPath: undefined });
    await node.cni.synced();
    await node.proxy.ready();
    assert.deepEqual(node.proxy.running, []);
    assert.match(node.proxy.warnings().join(), /has not found their namespaces: lost/);
  },
);

zdsTest(
  'while the CNI agent is away the agent is unready and its pods go on; it returns, and nothing restarts',
  async (node) => {
    await synced(node, 'one', 'two');
    node.cni.stop();
    await node.proxy.until(() => !node.proxy.isReady);
    assert.match(node.proxy.manager.readiness().waitingFor, /CNI agent/);
    assert.deepEqual(node.proxy.running, ['one@one', 'two@two']);
    node.cni.start();
    await node.cni.synced(1);
    await node.proxy.ready();
    assert.deepEqual(node.proxy.events, ['start one', 'start two']);
  },
);

zdsTest('a peer that closes before the hello leaves the agent unready, and the next one is served', async (node) => {
  node.cni.hijackNext(async () => {});
  await node.proxy.until(() => node.proxy.warnings().length > 0);
  assert.equal(node.proxy.isReady, false);
  await synced(node, 'web');
});

zdsTest('an agent that stops ends its connection, and its proxies in order', async (node) => {
  const connection = await synced(node, 'web');
  await node.proxy[Symbol.asyncDispose]();
  assert.match(await connection.ended, /closed the connection/);
  assert.deepEqual(node.proxy.events, ['start web', 'stop web graceful']);
});

zdsTest('two agents at once: both serve the snapshot, an Add goes to the newer, a Del to both', async (node) => {
  await synced(node, 'web');
  await using newer = new ZdsProxy(node.socket);
  await node.cni.synced(1);
  await newer.ready();
  assert.deepEqual([node.proxy.running, newer.running], [['web@web'], ['web@web']]);

  await node.cni.enrol(node.pod('late'));
  assert.deepEqual([node.proxy.running, newer.running], [['web@web'], ['late@late', 'web@web']]);
  await node.cni.unenrol('web');
  await node.proxy.until(() => node.proxy.running.length === 0);
  await newer.until(() => newer.running.length === 1);

  await newer[Symbol.asyncDispose]();
  await node.cni.connections.at(-1)?.ended;
  await node.cni.enrol(node.pod('later'));
  assert.deepEqual(node.proxy.running, ['later@later'], 'the former newest is the newest again');
});

const violations = [
  { name: 'a Keep after the snapshot', bad: () => KEEP('web'), nack: /failure to process message : ZDS: Keep after/ },
  { name: 'a second SnapshotSent', bad: () => SNAPSHOT_SENT, nack: /failure to process message : ZDS: a second/ },
  {
    name: 'an Add without its workload',
    bad: (node: ZdsNode) => packet({ kind: 'add', uid: 'anonymous' }, node.netnsFd('anonymous')),
    nack: /failure to process message : add without workload info/,
  },
] as const;

for (const { name, bad, nack } of violations) {
  zdsTest(`${name} is refused, ends the connection, and not the pods; the next connection is served`, async (node) => {
    const connection = await synced(node, 'web');
    await assert.rejects(connection.send(bad(node)), nack);
    await node.proxy.until(() => !node.proxy.isReady);
    assert.match(await connection.ended, /closed the connection/);
    await node.cni.synced(1);
    await node.proxy.ready();
    assert.deepEqual(node.proxy.events, ['start web']);
    assert.equal(node.proxy.warnings().length, 1);
  });
}

test('an answer is never so late that it would be taken for the next one; the pod comes up later', timed, async () => {
  const clock = new FakeClock();
  await using node = new ZdsNode({ clock });
  const connection = await synced(node);
  const listening = Promise.withResolvers<void>();
  node.proxy.onStart = () => listening.promise;
  const added = connection.send(node.add('slow'));
  await node.proxy.until(() => node.proxy.manager.counts().pending === 1);
  clock.advance(4_000);
  await assert.rejects(added, /failure to start proxy : not done within 4 s/);
  listening.resolve();
  await node.proxy.until(() => node.proxy.running.length === 1);
  await connection.send(node.add('slow'));
});

test('a peer that takes the connection and says nothing is left after 30 s', timed, async () => {
  const clock = new FakeClock();
  await using node = new ZdsNode({ clock });
  const hello = Promise.withResolvers<void>();
  const left = Promise.withResolvers<void>();
  node.cni.hijackNext(async (socket) => {
    await socket.receive(100);
    hello.resolve();
    assert.equal(await socket.receive(100), undefined);
    left.resolve();
  });
  await hello.promise;
  await settle();
  clock.advance(29_999);
  await settle();
  assert.deepEqual(node.proxy.warnings(), []);
  clock.advance(1);
  await left.promise;
  await node.proxy.until(() => node.proxy.warnings().length === 1);
  assert.match(node.proxy.warnings().join(), /said nothing for 30 s/);
});

test(
  'while nobody listens it is tried after 20 ms, then half as often each time, at last every 15 s',
  timed,
  async () => {
    const delays: number[] = [];
    const clock = new (class extends FakeClock {
      override after(delayMs: number, fire: () => void): Disposable {
        delays.push(delayMs);
        return super.after(delayMs, fire);
      }
    })();
    await using node = new ZdsNode({ clock, isCniAway: true });
    for (let tries = 0; tries < 12; tries += 1) {
      await settle();
      clock.advance(15_000);
    }
    await settle();
    const pauses = delays.filter((delayMs) => delayMs !== 5_000);
    assert.deepEqual(
      pauses.slice(0, 13),
      [20, 40, 80, 160, 320, 640, 1_280, 2_560, 5_120, 10_240, 15_000, 15_000, 15_000],
    );
    assert.equal(node.proxy.warnings().length, 1);
  },
);

test('a connection that served for a while is followed by the next at once', timed, async () => {
  const clock = new FakeClock();
  await using node = new ZdsNode({ clock });
  const connection = await synced(node, 'web');
  clock.advance(15_000);
  connection.close();
  await node.proxy.until(() => !node.proxy.isReady);
  clock.advance(0);
  await node.cni.synced(1);
  await node.proxy.ready();
});
