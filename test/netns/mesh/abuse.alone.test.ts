/**
 * Peers that mean harm, with and without a certificate: the agent stays up, bounded, and useful to everybody else. Prints what
 * each flood did to the requests of a second pod, against those just before it; programs of their own measure and flood, the
 * flooder behind everybody else on one CPU, so that the figures are those of the agent and not of who had to share a core with whom.
 */
import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, writeFileSync } from 'node:fs';
import { availableParallelism, setPriority } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { askForSlices, helperThreads, yieldMore } from '../../../src/sys/thread-priority.ts';
import { ALONE, keepAwake } from '../../bench/neighbour/processes.ts';
import { stolenSeconds } from '../../bench/proc.ts';
import type { AgentProcess } from '../../support/agent-process.ts';
import { identityOf, meshForFile } from '../../support/mesh.ts';
import { HboneClient, meshMaterial } from '../../support/mesh-hbone.ts';
import { metricsOf } from '../../support/metric-text.ts';
import { skipWithoutRoot } from '../../support/netns.ts';
import type { FloodReport } from './flooder.ts';

const FLOODER = fileURLToPath(new URL('./flooder.ts', import.meta.url));
/** Serves and asks in a pod; at each number of seconds on its input it tells how long each answer took meanwhile. */
const ACTOR = fileURLToPath(new URL('../../bench/neighbour/actor.ts', import.meta.url));
const LAST_CPU = String(availableParallelism() - 1);
const privileged = { skip: skipWithoutRoot, timeout: 120_000 };
const MIB = 1024 * 1024;
const FLOOD_SECONDS = 1.5;
const MEASURE_SECONDS = 1.2;
const CALM_SECONDS = 0.8;
/** Until the code of those that ask and answer is compiled: 5,000 requests. */
const WARM_UP_SECONDS = 8;
const HALF_OPEN = 10_000;
const HALF_GREETED = 2_000;
/** Handshakes that the agent keeps open per pod, in each lane while the pod changes it, and a little for everything else. */
const MOST_DESCRIPTORS = 2 * 512 + 200;
/** Far above what a flood may hold for a moment, far below what an unbounded queue would take. */
const MOST_GROWTH = 256 * MIB;
/** What may stay for good: code that was compiled, tables that grew. */
const MOST_LEFT = 64 * MIB;
/** A gross hang. Cores shared with the flood make no promise about less. */
const MOST_SILENCE_MS = 10_000;
const CALM = 11;
const COMPRESSION_ERROR = 9;

/** Kind, and the code of the GOAWAY that ends its tunnels; `undefined`: any, or none. */
const FLOODS = [
  ['rapid reset', CALM],
  ['continuation', CALM],
  ['empty continuation', CALM],
  ['ping', CALM],
  ['settings', CALM],
  ['empty data', CALM],
  ['window update', CALM],
  ['priority', CALM],
  ['unknown frame', CALM],
  ['malformed HPACK', COMPRESSION_ERROR],
  ['header bomb', undefined],
  ['HPACK bomb', undefined],
  ['CONNECT with :path', CALM],
  ['data without a stream', undefined],
  ['key update', CALM],
] as const;

/** Whoever was cut waits before it may come again, so each flood comes from an address of its own. */
const attackers = FLOODS.map((_, i) => `outside-${i}`);
const nodes = { n1: ['client'], n2: ['victim', 'neighbour'], n3: ['outside', 'outside-odd', ...attackers] };
const mesh = meshForFile({ nodes }, prepare);
let certificate: readonly string[] = [];
let probe: ChildProcess;
let start = { rss: 0, descriptors: 0 };
/** What requests took while nobody flooded, ms. */
const calm: number[] = [];

interface Row {
  readonly name: string;
  readonly attack: readonly (string | number)[];
  readonly outcome: Outcome;
}

const HEAD = ['tunnels', 'frames', 'cut in', 'codes', 'p50', 'p99', 'x calm', 'longest', 'CPU', 'RSS', 'stolen'];
const rows: Row[] = [];

function agent(): AgentProcess {
  return mesh().agent('n2');
}

function descriptors(): number {
  return readdirSync(`/proc/${agent().pid}/fd`).length;
}

/** Who leaves the CPU to whom, so that the figures are what the flooded agent does to its pods. */
const ORDER = {
  /** The pod that is measured and its peer: applications and a node that would have CPUs of their own. */
  measured: { nice: '-10', sliceMs: 0.2 },
  flooder: { nice: '19', sliceMs: 20 },
} as const;

/** Without V8's helpers, which the agent has put behind its other threads. */
function threadsOf(pid: number): readonly number[] {
  const tasks = `/proc/${pid}/task`;
  const helpers = helperThreads(tasks);
  return readdirSync(tasks)
    .map(Number)
    .filter((thread) => !helpers.includes(thread));
}

/** A program in a pod, gone with the mesh. */
function program(
  pod: string,
  { nice, sliceMs }: (typeof ORDER)[keyof typeof ORDER],
  argv: readonly string[],
): ChildProcess {
  // Children have what their parent has.
  askForSlices(sliceMs);
  const child = mesh()
    .pod(pod)
    .inside.spawn(['nice', '-n', nice, ...argv], { stdio: ['pipe', 'pipe', 'inherit'] });
  askForSlices(0);
  mesh().keep({ [Symbol.dispose]: () => child.kill('SIGKILL') });
  return child;
}

function actor(pod: string, ...argv: readonly string[]): ChildProcess {
  return program(pod, ORDER.measured, [process.execPath, ...ALONE, ACTOR, ...argv]);
}

function flooder(pod: string, kind: string, amount: number): ChildProcess {
  const { ip } = mesh().pod('victim');
  const argv = [process.execPath, ...ALONE, FLOODER, kind, ip, String(amount), `${ip}:8080`, ...certificate];
  return program(pod, ORDER.flooder, ['taskset', '-c', LAST_CPU, ...argv]);
}

/** Lines of a program, one by one. */
class Lines {
  readonly #iterator: AsyncIterator<string>;

  constructor(child: ChildProcess) {
    assert.ok(child.stdout !== null);
    this.#iterator = createInterface(child.stdout)[Symbol.asyncIterator]();
  }

  async next(): Promise<string> {
    const { value, done } = await this.#iterator.next();
    assert.ok(done !== true, 'the program ended');
    return value;
  }
}

let answers: Lines;

/** Asks the second pod of the victim's node again and again, on one connection: what each answer took, ms. */
async function ask(seconds = MEASURE_SECONDS): Promise<readonly number[]> {
  const line = answers.next();
  probe.stdin?.write(`${seconds}\n`);
  return JSON.parse(await line) as readonly number[];
}

function quantile(times: readonly number[], q: number): number {
  return times.toSorted((a, b) => a - b)[Math.min(times.length - 1, Math.floor(times.length * q))] ?? 0;
}

async function prepare(): Promise<void> {
  mesh().keep(keepAwake());
  const peer = mesh().agent('n1').pid;
  for (const thread of threadsOf(peer)) {
    setPriority(thread, Number(ORDER.measured.nice));
    askForSlices(ORDER.measured.sliceMs, thread);
  }
  for (const thread of readdirSync('/proc/self/task').map(Number)) askForSlices(20, thread);
  yieldMore(10);
  const { keyPem, chainPem, rootsPem } = await meshMaterial(mesh(), identityOf('attacker'));
  const folder = mkdtempSync(join(mesh().lab.folder, 'flood-'));
  certificate = Object.entries({ key: keyPem, chain: chainPem, roots: rootsPem.join('') }).map(([name, text]) => {
    const path = join(folder, `${name}.pem`);
    writeFileSync(path, text, { mode: 0o600 });
    return path;
  });
  for (const pod of ['victim', 'neighbour']) await new Lines(actor(pod, 'serve', '8080')).next();
  probe = actor('client', 'probe', mesh().pod('neighbour').ip, '8080');
  answers = new Lines(probe);
  await isServed();
  await ask(WARM_UP_SECONDS);
  start = { rss: agent().rssBytes, descriptors: descriptors() };
}

/** What a flood did, in figures of `HEAD`. */
interface Outcome {
  readonly times: readonly number[];
  readonly cpuShare: number;
  readonly mostRss: number;
  /** What the host of this machine took of it: figures of a row that says much are those of somebody else. */
  readonly stolenMs: number;
}

/** Runs `attack`, and checks that the neighbour was served meanwhile and that the agent grew within bounds. */
async function during(attack: () => Promise<readonly number[]>): Promise<Outcome> {
  calm.push(...(await ask(CALM_SECONDS)));
  let [mostRss, mostFds] = [0, 0];
  const [startedMs, cpuMs, stolen] = [performance.now(), agent().cpuMs, stolenSeconds()];
  const watch = setInterval(() => {
    mostRss = Math.max(mostRss, agent().rssBytes);
    mostFds = Math.max(mostFds, descriptors());
  }, 50);
  let times: readonly number[];
  try {
    times = await attack();
  } finally {
    clearInterval(watch);
  }
  const cpuShare = (agent().cpuMs - cpuMs) / (performance.now() - startedMs);
  assert.ok(agent().isRunning);
  const mostMs = quantile(times, 1);
  assert.ok(times.length > 0 && mostMs < MOST_SILENCE_MS, `the neighbour waited ${mostMs} ms`);
  assert.ok(mostRss - start.rss < MOST_GROWTH, `the agent grew by ${mostRss - start.rss} bytes`);
  assert.ok(mostFds - start.descriptors < MOST_DESCRIPTORS, `${mostFds} descriptors`);
  assert.equal((await metricsOf(agent()))('culvert_bugs_total'), 0);
  return { times, cpuShare, mostRss, stolenMs: (stolenSeconds() - stolen) * 1_000 };
}

function note(name: string, attack: readonly (string | number)[], outcome: Outcome): void {
  rows.push({ name, attack, outcome });
}

function cellsOf({ attack, outcome: { times, cpuShare, mostRss, stolenMs } }: Row): readonly string[] {
  const ms = (value: number): string => `${value.toFixed(1)} ms`;
  return [
    ...attack.map(String),
    ms(quantile(times, 0.5)),
    ms(quantile(times, 0.99)),
    (quantile(times, 0.99) / quantile(calm, 0.99)).toFixed(1),
    ms(quantile(times, 1)),
    `${Math.round(cpuShare * 100)} %`,
    `${mostRss > start.rss ? '+' : ''}${Math.round((mostRss - start.rss) / MIB)} MiB`,
    `${Math.round(stolenMs)} ms`,
  ];
}

function table(): string {
  const title = `calm: p50 ${quantile(calm, 0.5).toFixed(2)} ms, p99 ${quantile(calm, 0.99).toFixed(2)} ms`;
  const all = [{ name: title, cells: HEAD }, ...rows.map((row) => ({ name: row.name, cells: cellsOf(row) }))];
  const widths = HEAD.map((_, i) => Math.max(...all.map(({ cells }) => (cells[i] ?? '').length)));
  const nameWidth = Math.max(...all.map(({ name }) => name.length));
  return all
    .map(({ name, cells }) => [name.padEnd(nameWidth), ...cells.map((c, i) => c.padStart(widths[i] ?? 0))].join('  '))
    .join('\n');
}

async function isServed(): Promise<boolean> {
  const material = await meshMaterial(mesh(), identityOf('client'));
  const { ip } = mesh().pod('victim');
  using tunnel = await HboneClient.open(mesh(), 'outside', { ip, material, expected: [identityOf('victim')] });
  return (await tunnel.status(`${ip}:8080`)) === 200;
}

for (const [name, kind, count] of [
  // While the first goes on, threads begin for the pod that is attacked.
  ['half-open', 'half-open', HALF_OPEN],
  ['half-open again', 'half-open', HALF_OPEN],
  ['half-greeted', 'half-greeted', HALF_GREETED],
] as const) {
  test(
    `${count} ${name} handshakes that never end hold a bounded number of sockets, and an honest peer gets through`,
    privileged,
    async () => {
      let counts: Record<string, number> = {};
      const outcome = await during(async () => {
        const child = flooder('outside', kind, count);
        const lines = new Lines(child);
        assert.equal(await lines.next(), 'flooding');
        const found = await ask();
        counts = JSON.parse(await lines.next()) as Record<string, number>;
        assert.ok((counts['connected'] ?? 0) > count * 0.9);
        assert.equal(await isServed(), true);
        child.kill('SIGKILL');
        await once(child, 'close');
        return found;
      });
      note(name, [counts['connected'] ?? 0, '-', '-', `${counts['closed']} closed`], outcome);
    },
  );
}

for (const [i, [kind, code]] of FLOODS.entries()) {
  test(
    `a flood: ${kind}: the tunnel is closed each time, the neighbour served, the agent bounded`,
    privileged,
    async () => {
      const mark = agent().lines.length;
      const attacker = attackers[i] ?? '';
      let report: FloodReport | undefined;
      const outcome = await during(async () => {
        const lines = new Lines(flooder(attacker, kind, FLOOD_SECONDS));
        assert.equal(await lines.next(), 'flooding');
        const found = await ask();
        report = JSON.parse(await lines.next()) as FloodReport;
        return found;
      });
      assert.ok(report !== undefined);
      const { sessions, closed, frames, mostBytes, mostMs, goaways } = report;
      note(kind, [sessions, frames, `${mostMs} ms`, Object.keys(goaways).join(' ')], outcome);
      assert.ok(closed >= 1, 'no tunnel was closed');
      assert.ok(closed >= sessions - 1);
      assert.ok(mostBytes < 64 * MIB, `${mostBytes} bytes were taken from one tunnel`);
      if (code !== undefined) assert.ok((goaways[code] ?? 0) >= 1, JSON.stringify(goaways));
      if (code === CALM) {
        const line = await agent().line(({ message }) => message === 'tunnel closed for abuse', 'abuse', mark);
        assert.equal(line['peer'], mesh().pod(attacker).ip);
        assert.equal(line['identity'], identityOf('attacker'));
      }
      assert.equal(await isServed(), true);
    },
  );
}

test('a flood of odd authorities is answered 400 each, then cut, and disturbs nobody', privileged, async () => {
  let report: FloodReport | undefined;
  const outcome = await during(async () => {
    const lines = new Lines(flooder('outside-odd', 'odd authority', FLOOD_SECONDS));
    assert.equal(await lines.next(), 'flooding');
    const found = await ask();
    report = JSON.parse(await lines.next()) as FloodReport;
    return found;
  });
  const { sessions = 0, frames = 0, goaways = {} } = report ?? {};
  note('odd authority', [sessions, frames, '-', Object.keys(goaways).join(' ')], outcome);
  assert.ok((goaways[CALM] ?? 0) >= 1, JSON.stringify(goaways));
  assert.equal(await isServed(), true);
});

test(
  'after all of that the memory and the sockets of the agent are back near where they were',
  privileged,
  async (t) => {
    probe.kill('SIGKILL');
    const limit = { rss: start.rss + MOST_LEFT, fds: start.descriptors + 20 };
    const overMs = performance.now();
    const isBack = (share: number): boolean => agent().rssBytes <= start.rss * share && descriptors() <= limit.fds;
    // The agent gives memory back 10 to 15 s after it became quiet.
    for (let i = 0; i < 150 && !isBack(1.1); i++) await sleep(200);
    const seconds = ((performance.now() - overMs) / 1_000).toFixed(0);
    t.diagnostic(`requests of the second pod, one at a time, and what the agent used:\n${table()}`);
    const [before, after] = [start.rss, agent().rssBytes].map((bytes) => Math.round(bytes / MIB));
    t.diagnostic(`${before} MiB before, ${after} MiB ${seconds} s after the last flood`);
    assert.ok(agent().rssBytes <= limit.rss, `${agent().rssBytes} bytes, ${start.rss} at the start`);
    assert.ok(descriptors() <= limit.fds, `${descriptors()} descriptors, ${start.descriptors} at the start`);
  },
);
