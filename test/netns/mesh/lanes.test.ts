/** A pod that keeps others waiting gets threads of its own, with a lower priority, until it is modest again. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { getPriority } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { StatusView } from '../../../src/agent/admin/views.ts';
import { sliceMsOf } from '../../../src/sys/thread-priority.ts';
import type { AgentProcess } from '../../support/agent-process.ts';
import { Faults } from '../../support/faults.ts';
import { meshForFile, uidOf } from '../../support/mesh.ts';
import { dig, ResolvConf } from '../../support/mesh-dns.ts';
import { type Client, dial, doubling } from '../../support/mesh-traffic.ts';
import { metricsOf } from '../../support/metric-text.ts';
import { skipWithoutRoot } from '../../support/netns.ts';

const privileged = { skip: skipWithoutRoot, timeout: 120_000 };
const PORT = 8001;
/** Clients of the greedy pod, each of which opens one connection after the other. */
const CROWD = 6;
const PAUSE_MS = 2;
/** Of the neighbour: it is modest, as its turn is over less often than those of who keeps others waiting. */
const POLITE_MS = 120;
const TO_GREEDY = 'workload keeps others waiting, threads of a lower priority serve it';
const TO_COMMON = 'workload is modest again, it shares threads with the others';
const ATTACKED = 'peers attack the workload, threads of a lower priority serve what is new';
const RELEASED = 'pod released';
/** Of one peer, and none of them says a word: far more than are borne. */
const SILENT = 200;

const WEB = { name: 'web.demo.svc.cluster.local', vip: '10.96.0.1' } as const;
const resolvConf = new ResolvConf();
const faults = new Faults();
after(() => faults[Symbol.dispose]());

const mesh = meshForFile(
  {
    nodes: { n1: ['client', 'other', 'server', 'modest', 'target'], n2: ['outside'] },
    flags: ['--workers', '1'],
    env: {
      ...faults.env,
      // Of a core, which on a busy machine the thread has a tenth of.
      CULVERT_GREEDY_LANE: '1%',
      CULVERT_GREEDY_LANE_STAY: '3s',
      ...resolvConf.env,
    },
    mesh: (made) => {
      resolvConf.write([`nameserver ${made.pod('outside').ip}`]);
      const { name: hostname, vip } = WEB;
      return { services: [{ name: 'web', namespace: 'demo', hostname, vips: [`/${vip}`], ports: { 80: PORT } }] };
    },
  },
  (started) => {
    started.serve('server', PORT, doubling);
    started.serve('modest', PORT, doubling);
    started.serve('target', PORT, doubling);
  },
);

/** From the first test to the last: pods that are greedy stay so. */
let greedy: Load | undefined;
after(() => greedy?.[Symbol.asyncDispose]());

const agent = (): AgentProcess => mesh().agent('n1');
const at = (pod: string) => ({ ip: mesh().pod(pod).ip, port: PORT });

async function lane(pod: string, message: string, from: number): Promise<void> {
  await agent().line((line) => line.message === message && line['uid'] === uidOf(pod), `${pod}: ${message}`, from);
}

/** Connections that each thread carries. */
async function carried(): Promise<Record<string, number>> {
  const { workers } = JSON.parse((await agent().get('/status')).body) as StatusView;
  return Object.fromEntries(workers.map(({ name, connections }) => [name, connections]));
}

/** Work that goes on until it is stopped, and how it went. */
class Load implements AsyncDisposable {
  done = 0;
  readonly failures: string[] = [];
  #isOver = false;
  readonly #loops: Promise<void>[];

  constructor(loops: number, turn: () => Promise<void>) {
    this.#loops = Array.from({ length: loops }, async () => {
      while (!this.#isOver) {
        try {
          await turn();
          this.done += 1;
        } catch (error) {
          this.failures.push(String(error));
        }
        await sleep(PAUSE_MS);
      }
    });
  }

  /** Resolves when so many more went well. */
  async more(count: number): Promise<void> {
    for (const wanted = this.done + count; this.done < wanted; ) await sleep(PAUSE_MS);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isOver = true;
    await Promise.all(this.#loops);
  }
}

/** New connections to `server`, as many as the agent takes, from these in turn. */
function greed(pods: readonly string[]): Load {
  let turn = 0;
  return new Load(CROWD, async () => {
    turn += 1;
    using client = await dial(mesh(), pods[turn % pods.length] ?? '', at('server'));
    await client.exchange('hello');
  });
}

async function nowGreedy(pods: readonly string[]): Promise<Load> {
  await greedy?.[Symbol.asyncDispose]();
  greedy = greed(pods);
  return greedy;
}

/** Somebody else who wants the same thread all the time. */
function neighbour(client: Client): Load {
  return new Load(1, async () => {
    await client.exchange('ping');
    await sleep(POLITE_MS);
  });
}

/** The threads of the agent with that name: by how much their priority is lower than that of its first, and their time slices; each once. */
function orderOf(name: string): readonly string[] {
  const tasks = `/proc/${agent().pid}/task`;
  const named = readdirSync(tasks).filter((task) => readFileSync(join(tasks, task, 'comm'), 'utf8').trim() === name);
  const order = (task: string): string => {
    const lower = getPriority(Number(task)) - getPriority(agent().pid);
    return `${lower} lower, ${sliceMsOf(Number(task))} ms`;
  };
  return [...new Set(named.map(order))];
}

test('a pod that peers attack gets threads of its own for what is new, and what it has stays', privileged, async () => {
  using before = await dial(mesh(), 'outside', at('target'));
  assert.equal(await before.exchange('a'), 'aa');
  const { ip } = mesh().pod('target');
  const { inside } = mesh().pod('outside');
  await using silent = new AsyncDisposableStack();
  for (let i = 0; i < SILENT; i++) {
    const socket = (await inside.dial({ ip, port: 15_008 })).on('error', () => undefined);
    silent.defer(() => void socket.destroy());
  }
  await lane('target', ATTACKED, 0);
  using next = await dial(mesh(), 'outside', at('target'));
  assert.equal(await next.exchange('b'), 'bb');
  assert.equal(await before.exchange('c'), 'aacc');
  const threads = await carried();
  assert.deepEqual([threads['worker-1'], threads['greedy-1']], [1, 1]);
});

test('a pod that keeps others waiting gets threads of its own, and loses nothing', privileged, async () => {
  using polite = await dial(mesh(), 'outside', at('modest'));
  using inTunnel = await dial(mesh(), 'client', at('server'));
  using inClear = await dial(mesh(), 'outside', at('server'));
  await Promise.all([inTunnel.exchange('a'), inClear.exchange('a')]);
  await using others = neighbour(polite);

  const load = await nowGreedy(['client', 'other']);
  await Promise.all(['server', 'client', 'other'].map((pod) => lane(pod, TO_GREEDY, 0)));
  await load.more(50);
  assert.deepEqual(load.failures, []);

  for (const client of [inTunnel, inClear]) assert.equal(await client.exchange('bc'), 'aabcbc');
  using next = await dial(mesh(), 'outside', at('server'));
  await next.exchange('d');
  const threads = await carried();
  assert.ok((threads['greedy-1'] ?? 0) > 0, JSON.stringify(threads));
  assert.ok((threads['worker-1'] ?? 0) > 0, JSON.stringify(threads));
  // Kernels before 6.12 know no slice of a thread.
  const usual = sliceMsOf(process.pid);
  const [main, last] = usual ? [10, 20] : [usual, usual];
  const order = ['worker-1', 'node-MainThread', 'greedy-1', 'node-V8Worker'].map(orderOf);
  const want = [`0 lower, ${usual} ms`, `0 lower, ${main} ms`, `15 lower, ${last} ms`, `15 lower, ${last} ms`];
  assert.deepEqual(
    order,
    want.map((each) => [each]),
  );
  const metric = await metricsOf(agent());
  assert.equal(metric('culvert_workload_greedy', { pod: 'server' }), 1);
  assert.equal(others.failures.length, 0);
});

/** Resolves when DNS of `pod` answers over both transports: while no worker has it, nobody does. */
async function resolves(pod: string): Promise<void> {
  const record = `${WEB.name}. A ${WEB.vip}`;
  const question = [`@${WEB.vip}`, '+tries=1', '+time=2', WEB.name, 'A'];
  for (let found = ''; found !== `${record},${record}`; ) {
    const dug = await Promise.all([dig(mesh().pod(pod), ...question), dig(mesh().pod(pod), '+tcp', ...question)]);
    found = dug.map(([reply]) => reply?.answers[0] ?? '').join();
  }
}

test('a greedy pod has DNS as before, over UDP and TCP', privileged, async () => {
  const metric = await metricsOf(agent());
  assert.equal(metric('culvert_workload_greedy', { pod: 'client' }), 1);
  await resolves('client');
});

/** Resolves when connections to `pod` are taken: they are refused until a worker has the place of one that ended. */
async function served(pod: string): Promise<void> {
  for (;;) {
    try {
      using client = await dial(mesh(), 'outside', at(pod));
      await client.exchange('a');
      return;
    } catch {
      await sleep(PAUSE_MS);
    }
  }
}

/** Resolves when `server` is in the greedy lane: whose threads ended, or had no CPU for a while, looks modest meanwhile. */
async function isGreedy(): Promise<void> {
  while ((await metricsOf(agent()))('culvert_workload_greedy', { pod: 'server' }) !== 1) await sleep(PAUSE_MS);
}

for (const { thread, theirs, others } of [
  { thread: 'greedy-1', theirs: 'server', others: 'modest' },
  { thread: 'worker-1', theirs: 'modest', others: 'server' },
]) {
  test(`${thread} takes the connections of its own lane along when it ends, and no others`, privileged, async () => {
    await isGreedy();
    await served(theirs);
    using lost = await dial(mesh(), 'outside', at(theirs));
    using kept = await dial(mesh(), 'outside', at(others));
    await Promise.all([lost.exchange('a'), kept.exchange('a')]);
    const mark = agent().lines.length;
    await faults.inject('throw', thread);
    await lost.ended();
    assert.equal(await kept.exchange('b'), 'aabb');
    await agent().line((line) => line.message.startsWith('data-plane worker ended'), 'end', mark);
    await Promise.all([served(theirs), served(others), resolves('client')]);
  });
}

test('a pod that leaves the mesh leaves the greedy lane too', privileged, async () => {
  const mark = agent().lines.length;
  mesh().enrol(['client', 'server', 'modest']);
  await agent().line((line) => line.message === RELEASED && line['uid'] === uidOf('other'), RELEASED, mark);
  using client = await dial(mesh(), 'other', at('server'));
  assert.equal(await client.exchange('a'), 'aa');
});

test('a pod that is modest again shares threads with the others, and loses nothing', privileged, async () => {
  using inTunnel = await dial(mesh(), 'client', at('server'));
  await inTunnel.exchange('a');
  const mark = agent().lines.length;
  await nowGreedy(['outside']);
  await lane('client', TO_COMMON, mark);
  assert.equal(await inTunnel.exchange('b'), 'aabb');
  using next = await dial(mesh(), 'client', at('server'));
  assert.equal(await next.exchange('c'), 'cc');
  const metric = await metricsOf(agent());
  assert.equal(metric('culvert_workload_greedy', { pod: 'client' }), 0);
});

test(
  'the agent that takes the node over has the listeners and connections of greedy pods too',
  privileged,
  async () => {
    using inClear = await dial(mesh(), 'outside', at('server'));
    await inClear.exchange('a');
    const heir = mesh().spawnSecondAgent('n1', ['--take-over', 'true']);
    await mesh().captured('server', heir);
    await heir.tookOver();
    assert.equal(await inClear.exchange('b'), 'aabb');
    await resolves('server');
    await greedy?.more(50);
    using next = await dial(mesh(), 'outside', at('server'));
    await next.exchange('c');
    const { connections } = JSON.parse((await heir.get('/status')).body) as StatusView;
    assert.ok(connections.live > 0);
  },
);
