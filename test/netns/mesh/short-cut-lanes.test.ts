/** Same-node short cuts while one of their pods has threads of its own. */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ConnectionsView } from '../../../src/agent/admin/views.ts';
import { formatHostPort } from '../../../src/base/ip.ts';
import type { AgentProcess } from '../../support/agent-process.ts';
import { Faults } from '../../support/faults.ts';
import { identityOf, type MeshRecord, meshForFile, NAMESPACE, uidOf } from '../../support/mesh.ts';
import { type Client, dial, doubling } from '../../support/mesh-traffic.ts';
import { skipWithoutRoot } from '../../support/netns.ts';
import { until } from '../../support/until.ts';

const privileged = { skip: skipWithoutRoot, timeout: 120_000 };
const PORT = 8001;
/** Loops that open one connection after the other, to where no other pod of the node has a part in it. */
const CROWD = 6;
const PAUSE_MS = 2;
/** Where neighbours keep each other busy. */
const OTHER_PORT = 8002;
/** Of them: modest, as their turns are hardly ever over, and often enough for others to be greedy. */
const POLITE_MS = 60;
const PODS = ['greedy', 'blue', 'red'] as const;
const WAYS = PODS.flatMap((from) => PODS.filter((to) => to !== from).map((to) => [from, to] as const));

const faults = new Faults();
after(() => faults[Symbol.dispose]());

const mesh = meshForFile(
  {
    nodes: { n1: PODS, n2: ['outside'] },
    flags: ['--workers', '1', '--same-node-short-cut', 'accept-no-network-policy'],
    env: {
      ...faults.env,
      // Of a core, which on a busy machine the thread has a tenth of.
      CULVERT_GREEDY_LANE: '1%',
      CULVERT_GREEDY_LANE_STAY: '1s',
    },
  },
  (made) => {
    for (const pod of [...PODS, 'outside']) made.serve(pod, PORT, doubling);
    made.serve('red', OTHER_PORT, doubling);
  },
);

const at = (pod: string) => ({ ip: mesh().pod(pod).ip, port: PORT });

/** Loops of work until disposed, which tells how it went. */
function work(loops: number, pauseMs: number, turn: () => Promise<unknown>): AsyncDisposable {
  let isOver = false;
  const running = Array.from({ length: loops }, async () => {
    for (; !isOver; await sleep(pauseMs)) await turn();
  });
  const ended = Promise.allSettled(running);
  return {
    [Symbol.asyncDispose]: async () => {
      isOver = true;
      for (const loop of await ended) if (loop.status === 'rejected') throw loop.reason;
    },
  };
}

function only(pod: string): MeshRecord {
  const rules = [[[{ principals: [{ Exact: identityOf(pod).replace('spiffe://', '') }] }]]];
  return { name: `only-${pod}`, namespace: NAMESPACE, scope: 'Namespace', action: 'Allow', dryRun: false, rules };
}

function greed(): AsyncDisposable {
  return work(CROWD, PAUSE_MS, async () => {
    try {
      using client = await dial(mesh(), 'greedy', at('outside'));
      await client.exchange('hello');
    } catch {
      // One test ends the worker that carries it.
    }
  });
}

async function lane(agent: AgentProcess, which: 'greedy' | 'common', from = 0): Promise<void> {
  const said = { greedy: 'workload keeps others waiting', common: 'workload is modest again' }[which];
  await agent.line(({ message, uid }) => message.startsWith(said) && uid === uidOf('greedy'), said, from);
}

/** Between each pair of pods, both ways. */
class Pairs implements Disposable {
  readonly #clients: ReadonlyMap<string, Client>;

  private constructor(clients: ReadonlyMap<string, Client>) {
    this.#clients = clients;
  }

  static async open(): Promise<Pairs> {
    const open = WAYS.map(async ([from, to]) => [`${from}-${to}`, await dial(mesh(), from, at(to))] as const);
    const pairs = new Pairs(new Map(await Promise.all(open)));
    await pairs.exchange();
    return pairs;
  }

  /** On each, or on those of which `which` is true, as much comes back as should, and is what was sent. */
  async exchange(which: (name: string) => boolean = () => true): Promise<void> {
    for (const [name, client] of this.#clients) {
      if (!which(name)) continue;
      const before = client.text;
      assert.equal(await client.exchange('ab'), `${before}abab`, name);
    }
  }

  get fromGreedy(): readonly Client[] {
    return [...this.#clients].filter(([name]) => isFromGreedy(name)).map(([, client]) => client);
  }

  [Symbol.dispose](): void {
    for (const client of this.#clients.values()) client[Symbol.dispose]();
  }
}

function isFromGreedy(name: string): boolean {
  return name.startsWith('greedy-');
}

/** Resolves when `count` connections of each pair of pods are open, as both ends see it, all of them short cuts. */
async function areShortCuts(agent: AgentProcess, count: number): Promise<void> {
  const wanted = [...Array(count).fill('inbound SAMENODE'), ...Array(count).fill('outbound SAMENODE')];
  await until(`${count} short cuts between each two pods`, async () => {
    const { open } = JSON.parse((await agent.get('/connections')).body) as ConnectionsView;
    // By address alone: conntrack changes the port of a client that uses it for two destinations behind one redirection.
    const found = WAYS.map(([from, to]) =>
      open.filter(({ src, dst }) => src.startsWith(`${mesh().pod(from).ip}:`) && dst === formatHostPort(at(to))),
    );
    return found.every((some) => {
      const ends = some.map(({ direction, protocol }) => `${direction} ${protocol}`).toSorted();
      return ends.join() === wanted.join();
    });
  });
}

/** Resolves when connections from `pod` are taken again: they are refused until a worker has the place of one that ended. */
async function served(pod: string): Promise<void> {
  for (;;) {
    try {
      using client = await dial(mesh(), pod, at('outside'));
      await client.exchange('a');
      return;
    } catch {
      await sleep(PAUSE_MS);
    }
  }
}

/** Others want turns all the while: without them nobody is greedy. */
async function neighbours(): Promise<AsyncDisposable> {
  const client = await dial(mesh(), 'blue', { ...at('red'), port: OTHER_PORT });
  return work(1, POLITE_MS, () => client.exchange('ping'));
}

/** Does `run` in the greedy lane; resolves when the pod has left it. */
async function greedily<T>(agent: AgentProcess, from: number, run: () => Promise<T>): Promise<T> {
  const greedy = greed();
  try {
    await lane(agent, 'greedy', from);
    return await run();
  } finally {
    const mark = agent.lines.length;
    await greedy[Symbol.asyncDispose]();
    await lane(agent, 'common', mark);
  }
}

test('short cuts go on, and new ones are taken, while a pod has threads of its own', privileged, async () => {
  const agent = mesh().agent('n1');
  await using _neighbours = await neighbours();
  using before = await Pairs.open();
  using during = await greedily(agent, 0, async () => {
    await before.exchange();
    await areShortCuts(agent, 1);
    return await Pairs.open();
  });
  for (const pairs of [before, during]) await pairs.exchange();
  await areShortCuts(agent, 2);

  // Whoever carries them now is whom a policy reaches.
  await mesh().update({ policies: [only('blue')] });
  for (const pairs of [before, during]) {
    await Promise.all(pairs.fromGreedy.map((client) => client.ended()));
    await pairs.exchange((name) => name === 'blue-red');
  }
  await mesh().update({});
});

test('they are with the threads of the pod that calls', privileged, async () => {
  const agent = mesh().agent('n1');
  await using _neighbours = await neighbours();
  using before = await Pairs.open();
  const mark = agent.lines.length;
  await using _greed = greed();
  await lane(agent, 'greedy', mark);
  await areShortCuts(agent, 1);
  using during = await Pairs.open();
  await faults.inject('throw', 'greedy-1');
  for (const pairs of [before, during]) {
    await Promise.all(pairs.fromGreedy.map((client) => client.ended()));
    await pairs.exchange((name) => !isFromGreedy(name));
  }
  await served('greedy');
  using anew = await Pairs.open();
  await anew.exchange();
});

test('the next agent has those of both lanes', privileged, async () => {
  await using _neighbours = await neighbours();
  using before = await Pairs.open();
  await using _greed = greed();
  const heir = mesh().spawnAgent('n1', ['--take-over', 'true']);
  await heir.tookOver();
  await before.exchange();
  await areShortCuts(heir, 1);
});
