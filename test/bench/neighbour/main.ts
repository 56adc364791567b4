/**
 * `npm run bench:neighbour`: what a pod pays for a greedy one. Four pods of one node, so that each connection crosses the same
 * agent twice; the agent has one CPU, all applications the other. Pod A moves bulk and opens 2,000 connections a second,
 * pod B asks for 1 KiB again and again: its p99 with and without A, with turns and budgets on and off. A rests and goes on
 * several times in a round, so that what changes with time (caches, compiled code, the machine) is in both figures.
 */
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { getPriority, setPriority } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { identityOf, TestMesh } from '../../support/mesh.ts';
import { meshMaterial } from '../../support/mesh-hbone.ts';
import { metricsOf } from '../../support/metric-text.ts';
import { median } from '../metrics.ts';
import { Noise } from '../noise.ts';
import { AGENT_CPU, type Done, Foreigners, Greedy, keepAwake, NOTHING_DONE, Probe, serve } from './processes.ts';

const HELP = `npm run bench:neighbour -- [options]

  --rounds N     of each way, in turn; of unmeshed one (default 2)
  --ways LIST    of lanes, turns, nothing, and unmeshed: without an agent (default all)
  --windows N    in which A works, and as many in which it rests (default 5)
  --seconds N    of each window (default 2)
  --rate N       new connections a second of the greedy pod (default 2000)
  --bulk N       bulk connections of it (default 4)
  --handshakes N foreign clients that shake hands with the greedy pod again and again (default 0)
  --idle N       seconds after the load until memory is read (default 20)
  --help

Needs root and two CPUs. What else runs on the machine is in the figures: agent and probe run at the highest priority.
`;

const PORT = 8080;
const HIGHEST = -20;
const PODS = ['a-client', 'a-server', 'b-client', 'b-server'];
const MIB = 2 ** 20;
/** From the first greed, while the agent finds it and begins threads, whose code is not compiled yet: told apart. */
const BEGINNING_SECONDS = 8;
/** From there to the state that lasts. */
const SETTLE_MS = 17_000;
/** From the moment A rests or goes on to the next window. */
const CHANGE_MS = 500;

/** What the agent does about it; unmeshed is the floor: what kernel and applications alone make B pay, A unhindered. */
const WAYS = {
  unmeshed: undefined,
  lanes: {},
  turns: { CULVERT_GREEDY_LANE: 'off' },
  nothing: { CULVERT_GREEDY_LANE: 'off', CULVERT_FAIR_TURNS: 'false' },
} as const;
type Way = keyof typeof WAYS;
const NAMES = Object.keys(WAYS) as readonly Way[];

/** What requests of B took, ms: before A began, as it began, while it worked, while it rested. */
interface Measured {
  readonly before: readonly number[];
  readonly beginning: readonly number[];
  readonly beside: readonly number[];
  readonly alone: readonly number[];
  /** Of A while it worked. */
  readonly done: Done;
  readonly seconds: number;
  /** Of the machine, what others used meanwhile. */
  readonly othersShare: number;
}

/** Of the agent. */
interface Costs {
  readonly rssMib: readonly [start: number, most: number, after: number];
  readonly held: number;
  readonly handshakes: number;
}

interface Round {
  readonly measured: Measured;
  readonly costs: Costs | undefined;
}

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '2' },
    ways: { type: 'string', default: NAMES.join() },
    windows: { type: 'string', default: '5' },
    seconds: { type: 'string', default: '2' },
    rate: { type: 'string', default: '2000' },
    bulk: { type: 'string', default: '4' },
    handshakes: { type: 'string', default: '0' },
    idle: { type: 'string', default: '20' },
    help: { type: 'boolean', default: false },
  },
});
if (values.help) {
  process.stdout.write(HELP);
  process.exit(0);
}

/** B before A begins, then in turn beside it and while it rests. */
async function measure(mesh: TestMesh, probe: Probe): Promise<Measured> {
  const [seconds, windows] = [Number(values.seconds), Number(values.windows)];
  // Caches, compiled code, tunnels.
  await probe.measure(seconds);
  const before = await probe.measure(seconds);
  const target = mesh.pod('a-server').ip;
  await using greedy = new Greedy(mesh.pod('a-client'), [target, String(PORT), values.rate, values.bulk]);
  const peer = ['-connect', `${target}:15008`, '-cert', CERTIFICATE, '-key', KEY];
  using foreigners = new Foreigners(mesh.pod('outside'), Number(values.handshakes), peer);
  using _ = first();
  const beginning = await probe.measure(BEGINNING_SECONDS);
  await sleep(SETTLE_MS);
  const noise = new Noise();
  const [beside, alone]: [number[], number[]] = [[], []];
  let done = NOTHING_DONE;
  for (let i = 0; i < windows; i++) {
    const from = greedy.done;
    beside.push(...(await probe.measure(seconds)));
    done = sumOf(done, greedy.done, from);
    foreigners.rest();
    await greedy.rest();
    await sleep(CHANGE_MS);
    alone.push(...(await probe.measure(seconds)));
    greedy.goOn();
    foreigners.goOn();
    await sleep(CHANGE_MS);
  }
  return { before, beginning, beside, alone, done, seconds: windows * seconds, othersShare: noise.othersShare() };
}

/** What was done before, and between `from` and `to`. */
function sumOf(before: Done, to: Done, from: Done): Done {
  return {
    connections: before.connections + to.connections - from.connections,
    failed: before.failed + to.failed - from.failed,
    bytes: before.bytes + to.bytes - from.bytes,
  };
}

function probeIn(mesh: TestMesh): Probe {
  return new Probe(mesh.pod('b-client'), mesh.pod('b-server').ip, PORT);
}

async function round(mesh: TestMesh, env: (typeof WAYS)[Way]): Promise<Round> {
  if (env === undefined) {
    using probe = probeIn(mesh);
    return { measured: await measure(mesh, probe), costs: undefined };
  }
  const agent = ahead(() => mesh.spawnAgent('n1', ['--workers', '1'], { ...env, RUST_LOG: 'capture=info,warn' }));
  try {
    for (const pod of PODS) await mesh.captured(pod, agent);
    spawnSync('taskset', ['-apc', AGENT_CPU, String(agent.pid)]);
    using probe = probeIn(mesh);
    const start = agent.rssBytes;
    let most = 0;
    const watch = setInterval(() => (most = Math.max(most, agent.rssBytes)), 100);
    const measured = await measure(mesh, probe);
    const metric = await metricsOf(agent);
    const held = metric('culvert_workload_held_turns_total');
    const handshakes = metric('culvert_workload_handshakes_total');
    await sleep(Number(values.idle) * 1_000);
    clearInterval(watch);
    const [from = 0, top = 0, after = 0] = [start, most, agent.rssBytes].map((bytes) => Math.round(bytes / MIB));
    return { measured, costs: { rssMib: [from, top, after], held, handshakes } };
  } finally {
    agent.kill('SIGTERM');
    await agent.exited;
  }
}

/** This process only wakes to tell others what to do, and must not do that late. What it starts meanwhile has its priority. */
function first(): Disposable {
  const own = getPriority();
  setPriority(HIGHEST);
  return { [Symbol.dispose]: () => setPriority(own) };
}

/** What is started has the highest priority, and gives its threads what it wants from there. */
function ahead<T>(start: () => T): T {
  using _ = first();
  return start();
}

function quantile(times: readonly number[], q: number): number {
  return times.toSorted((a, b) => a - b)[Math.min(times.length - 1, Math.floor(times.length * q))] ?? 0;
}

function ratioOf({ alone, beside }: Measured): number {
  return quantile(beside, 0.99) / quantile(alone, 0.99);
}

function tell(way: Way, { measured, costs }: Round): void {
  const { before, beginning, alone, beside, done, seconds, othersShare } = measured;
  const ms = (times: readonly number[], q: number): string => quantile(times, q).toFixed(2);
  const figures = (times: readonly number[]): string => `p50 ${ms(times, 0.5)} p99 ${ms(times, 0.99)} ms`;
  process.stdout.write(
    `${way.padEnd(8)} B before ${figures(before)}; as A begins ${figures(beginning)}; alone ${figures(alone)}; beside A ${figures(beside)} ` +
      `max ${ms(beside, 1)} ms: ${ratioOf(measured).toFixed(1)}x; A ${Math.round(done.connections / seconds)} new/s ` +
      `${Math.round(done.bytes / seconds / MIB)} MiB/s ${done.failed} failed${costs === undefined ? '' : said(costs)}; ` +
      `others used ${Math.round(100 * othersShare)} % of the machine\n`,
  );
}

function said({ rssMib, held, handshakes }: Costs): string {
  return `; ${handshakes} handshakes, ${held} held turns; RSS ${rssMib.join(' -> ')} MiB`;
}

await using mesh = await TestMesh.start({ nodes: { n1: PODS, n2: ['outside'] }, enrolled: [] });
mesh.enrol(PODS);
const { keyPem, chainPem } = await meshMaterial(mesh, identityOf('outside'));
const [KEY, CERTIFICATE] = [join(mesh.lab.folder, 'key.pem'), join(mesh.lab.folder, 'certificate.pem')];
writeFileSync(KEY, keyPem, { mode: 0o600 });
writeFileSync(CERTIFICATE, chainPem);
using _awake = keepAwake();
using _serverOfA = await serve(mesh.pod('a-server'), 'a', PORT);
using _serverOfB = await serve(mesh.pod('b-server'), 'b', PORT);
const wanted = values.ways.split(',');
const ways = NAMES.filter((way) => wanted.includes(way));
const ratios = new Map<Way, number[]>();
for (let i = 0; i < Number(values.rounds); i++) {
  for (const way of ways) {
    // What an agent has captured stays captured.
    if (way === 'unmeshed' && i > 0) continue;
    const found = await round(mesh, WAYS[way]);
    tell(way, found);
    ratios.set(way, [...(ratios.get(way) ?? []), ratioOf(found.measured)]);
  }
}
const medians = [...ratios].map(([way, all]) => `${way} ${median(all)?.toFixed(1)}x`);
process.stdout.write(`p99 of B beside A, against alone: ${medians.join(', ')}; target 2x\n`);
