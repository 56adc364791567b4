/**
 * `npm run bench:neighbour`: what a pod pays for a greedy one. Four pods of one node, so that each connection crosses the same
 * agent twice; the agent has one CPU, all applications the other. Pod A moves bulk and opens 2,000 connections a second,
 * pod B asks for 1 KiB again and again: its p99 with and without A, with turns and budgets on and off.
 */
import { type ChildProcess, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { getPriority, setPriority } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { identityOf, TestMesh } from '../../support/mesh.ts';
import { meshMaterial } from '../../support/mesh-hbone.ts';
import { metricsOf } from '../../support/metric-text.ts';

const HELP = `npm run bench:neighbour -- [options]

  --rounds N     of each way, in turn (default 2)
  --ways LIST    of lanes, turns and nothing (default all)
  --seconds N    measured in each (default 4)
  --rate N       new connections a second of the greedy pod (default 2000)
  --bulk N       bulk connections of it (default 4)
  --handshakes N foreign clients that shake hands with the greedy pod again and again (default 0)
  --idle N       seconds after the load until memory is read (default 20)
  --help

Needs root and two CPUs. What else runs on the machine is in the figures: agent and probe run at the highest priority.
`;

const ACTOR = fileURLToPath(new URL('./actor.ts', import.meta.url));
const PORT = 8080;
const AGENT_CPU = '0';
const LOAD_CPU = '1';
const HIGHEST = -20;
const PODS = ['a-client', 'a-server', 'b-client', 'b-server'];
const MIB = 2 ** 20;
/** From the first greed to the state that lasts: the agent looks for some seconds before it gives a pod threads of its own. */
const SETTLE_MS = 8_000;

/** What the agent does about it. */
const WAYS = {
  lanes: {},
  turns: { CULVERT_GREEDY_LANE: 'off' },
  nothing: { CULVERT_GREEDY_LANE: 'off', CULVERT_FAIR_TURNS: 'false' },
} as const;
type Way = keyof typeof WAYS;
const NAMES = Object.keys(WAYS) as readonly Way[];

interface Found {
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly mostMs: number;
  readonly count: number;
}

interface Greed {
  readonly connections: number;
  readonly failed: number;
  readonly missed: number;
  readonly bytes: number;
}

interface Measured {
  readonly alone: Found;
  readonly beside: Found;
  readonly greed: { readonly connectionsPerSecond: number; readonly mibPerSecond: number; readonly failed: number };
}

interface Round extends Measured {
  readonly rssMib: readonly [start: number, most: number, after: number];
  readonly held: number;
  readonly handshakes: number;
}

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '2' },
    ways: { type: 'string', default: NAMES.join() },
    seconds: { type: 'string', default: '4' },
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

function actor(mesh: TestMesh, pod: string, argv: readonly string[], nice: string): ChildProcess {
  const prefix = ['nice', '-n', nice, 'taskset', '-c', LOAD_CPU];
  return mesh
    .pod(pod)
    .inside.spawn([...prefix, process.execPath, ACTOR, ...argv], { stdio: ['pipe', 'pipe', 'inherit'] });
}

async function nextLine(child: ChildProcess): Promise<string> {
  if (child.stdout === null) throw new Error('no output');
  const lines = createInterface(child.stdout);
  const [line] = (await once(lines, 'line')) as [string];
  lines.close();
  return line;
}

async function measure(probe: ChildProcess): Promise<Found> {
  const line = nextLine(probe);
  probe.stdin?.write(`${values.seconds}\n`);
  return JSON.parse(await line) as Found;
}

/** Peers of another node that shake hands with A's server without end: each handshake costs the agent a millisecond. */
function foreigners(mesh: TestMesh): readonly ChildProcess[] {
  const { ip } = mesh.pod('a-server');
  const argv = ['openssl', 's_time', '-new', '-tls1_3', '-time', '600', '-connect', `${ip}:15008`];
  const prefix = ['nice', '-n', '-5', 'taskset', '-c', LOAD_CPU];
  return Array.from({ length: Number(values.handshakes) }, () =>
    mesh.pod('outside').inside.spawn([...prefix, ...argv, '-cert', CERTIFICATE, '-key', KEY], { stdio: 'ignore' }),
  );
}

/** Lets A loose, and measures B when it has begun. */
async function beside(mesh: TestMesh, probe: ChildProcess): Promise<Omit<Measured, 'alone'>> {
  const { ip } = mesh.pod('a-server');
  const others = foreigners(mesh);
  const greedy = actor(mesh, 'a-client', ['greedy', ip, String(PORT), values.rate, values.bulk], '-5');
  let latest: Greed = { connections: 0, failed: 0, missed: 0, bytes: 0 };
  if (greedy.stdout !== null) {
    createInterface(greedy.stdout).on('line', (line) => (latest = JSON.parse(line) as Greed));
  }
  try {
    await sleep(SETTLE_MS);
    const before = latest;
    const startedMs = performance.now();
    const found = await measure(probe);
    const seconds = (performance.now() - startedMs) / 1_000;
    const greed = {
      connectionsPerSecond: (latest.connections - before.connections) / seconds,
      mibPerSecond: (latest.bytes - before.bytes) / seconds / MIB,
      failed: latest.failed,
    };
    return { beside: found, greed };
  } finally {
    for (const child of [greedy, ...others]) child.kill('SIGKILL');
    await once(greedy, 'close');
  }
}

/** The floor: what the kernel and the applications alone make B pay, A unhindered and nothing captured. */
async function withoutAgent(mesh: TestMesh): Promise<Measured> {
  const probe = actor(mesh, 'b-client', ['probe', mesh.pod('b-server').ip, String(PORT)], '-20');
  try {
    await measure(probe);
    return { alone: await measure(probe), ...(await beside(mesh, probe)) };
  } finally {
    probe.kill('SIGKILL');
  }
}

async function round(mesh: TestMesh, way: Way): Promise<Round> {
  const agent = ahead(() => mesh.spawnAgent('n1', ['--workers', '1'], { ...WAYS[way], RUST_LOG: 'capture=info,warn' }));
  for (const pod of PODS) await mesh.captured(pod, agent);
  spawnSync('taskset', ['-apc', AGENT_CPU, String(agent.pid)]);
  const probe = actor(mesh, 'b-client', ['probe', mesh.pod('b-server').ip, String(PORT)], '-20');
  try {
    await measure(probe);
    const start = agent.rssBytes;
    const alone = await measure(probe);
    let most = 0;
    const watch = setInterval(() => (most = Math.max(most, agent.rssBytes)), 100);
    const { beside: found, greed } = await beside(mesh, probe);
    const metric = await metricsOf(agent);
    const held = metric('culvert_workload_held_turns_total');
    const handshakes = metric('culvert_workload_handshakes_total');
    await sleep(Number(values.idle) * 1_000);
    clearInterval(watch);
    const rssMib = [start, most, agent.rssBytes].map((bytes) => Math.round(bytes / MIB));
    const [from = 0, top = 0, after = 0] = rssMib;
    return { alone, beside: found, greed, rssMib: [from, top, after], held, handshakes };
  } finally {
    probe.kill('SIGKILL');
    agent.kill('SIGTERM');
    await agent.exited;
  }
}

/** What is started has the highest priority, and gives its threads what it wants from there. */
function ahead<T>(start: () => T): T {
  const own = getPriority();
  setPriority(HIGHEST);
  try {
    return start();
  } finally {
    setPriority(own);
  }
}

function tell(way: string, { alone, beside: other, greed }: Measured, more = ''): void {
  const ms = (value: number): string => `${value.toFixed(2)} ms`;
  process.stdout.write(
    `${way.padEnd(8)} B alone p50 ${ms(alone.p50Ms)} p99 ${ms(alone.p99Ms)}; beside A p50 ${ms(other.p50Ms)} ` +
      `p99 ${ms(other.p99Ms)} max ${ms(other.mostMs)}: ${(other.p99Ms / alone.p99Ms).toFixed(1)}x; ` +
      `A ${Math.round(greed.connectionsPerSecond)} new/s ${Math.round(greed.mibPerSecond)} MiB/s ${greed.failed} failed${more}\n`,
  );
}

function costs({ rssMib, held, handshakes }: Round): string {
  return `; ${handshakes} handshakes, ${held} held turns; RSS ${rssMib.join(' -> ')} MiB`;
}

function median(values_: readonly number[]): number {
  const sorted = values_.toSorted((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? 0;
}

/** Else nice values count among ourselves only, and whatever else runs on the machine is in the figures (sched(7), autogroup). */
function aheadOfOthers(): void {
  try {
    writeFileSync('/proc/self/autogroup', '-20');
  } catch {
    // No autogroups here: nice values do it.
  }
}

aheadOfOthers();
await using mesh = await TestMesh.start({ nodes: { n1: PODS, n2: ['outside'] }, enrolled: [] });
mesh.enrol(PODS);
const { keyPem, chainPem } = await meshMaterial(mesh, identityOf('outside'));
const [KEY, CERTIFICATE] = [join(mesh.lab.folder, 'key.pem'), join(mesh.lab.folder, 'certificate.pem')];
writeFileSync(KEY, keyPem, { mode: 0o600 });
writeFileSync(CERTIFICATE, chainPem);
const servers = ['a-server', 'b-server'].map((pod) =>
  actor(mesh, pod, ['serve', String(PORT)], pod === 'b-server' ? '-20' : '-5'),
);
await Promise.all(servers.map(nextLine));
const ways = values.ways.split(',').flatMap((name) => NAMES.find((way) => way === name) ?? []);
tell('no agent', await withoutAgent(mesh));
const ratios = new Map<Way, number[]>();
for (let i = 0; i < Number(values.rounds); i++) {
  for (const way of ways) {
    const found = await round(mesh, way);
    tell(way, found, costs(found));
    ratios.set(way, [...(ratios.get(way) ?? []), found.beside.p99Ms / found.alone.p99Ms]);
  }
}
for (const server of servers) server.kill('SIGKILL');
const medians = [...ratios].map(([way, all]) => `${way} ${median(all).toFixed(1)}x`);
process.stdout.write(`p99 of B beside A, against alone: ${medians.join(', ')}; target 2x\n`);
