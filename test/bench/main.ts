/** `npm run bench`: Culvert against HAProxy and nginx mTLS pairs and against no proxy, in one interleaved run. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { makePeerCertificates, type PeerCertificates } from './certificates.ts';
import { Cleanup } from './cleanup.ts';
import {
  applicationFiles,
  type ColumnName,
  type ColumnSetup,
  isVariant,
  type Running,
  startApplications,
} from './columns/column.ts';
import { startCulvert, startVariant, THIS_CHECKOUT } from './columns/culvert.ts';
import { startDirect } from './columns/direct.ts';
import { HAPROXY } from './columns/haproxy.ts';
import { NGINX } from './columns/nginx.ts';
import { startPeer } from './columns/peers.ts';
import { Samples } from './metrics.ts';
import { Noise } from './noise.ts';
import { HELP, type Options, parseOptions, type ScenarioName } from './options.ts';
import { ensureTools } from './packages.ts';
import { renderChart } from './report/chart.ts';
import { renderJson } from './report/json.ts';
import { describeMachine, machineLine } from './report/machine.ts';
import { renderTable } from './report/table.ts';
import { renderVariants } from './report/variants.ts';
import * as scenario from './scenarios.ts';
import { buildTopology, type Topology } from './topology.ts';

type Benches = ReadonlyMap<ColumnName, scenario.Bench>;

const startedMs = performance.now();

function progress(text: string): void {
  const seconds = ((performance.now() - startedMs) / 1000).toFixed(0).padStart(4);
  process.stderr.write(`bench ${seconds} s  ${text}\n`);
}

/** In the order of one round. */
const TURNS: readonly { readonly group: ScenarioName; readonly run: (bench: scenario.Bench) => Promise<void> }[] = [
  { group: 'bulk', run: (bench) => scenario.bulk(bench, { direction: 'up', connections: 1 }) },
  { group: 'bulk', run: (bench) => scenario.bulk(bench, { direction: 'down', connections: 1 }) },
  { group: 'bulk', run: (bench) => scenario.bulk(bench, { direction: 'up', connections: 8 }) },
  { group: 'bulk', run: (bench) => scenario.bulk(bench, { direction: 'down', connections: 8 }) },
  { group: 'latency', run: scenario.latency },
  { group: 'requests', run: scenario.requests },
  { group: 'connections', run: scenario.connections },
];

interface Base {
  readonly options: Options;
  readonly cleanup: Cleanup;
  readonly topology: Topology;
  readonly directory: string;
  readonly certificates: PeerCertificates;
}

function startColumn(name: ColumnName, setup: ColumnSetup, base: Base): Promise<Running> {
  const { nodeFlags } = base.options;
  switch (name) {
    case 'direct':
      return startDirect(setup);
    case 'haproxy':
      return startPeer(setup, base.certificates, HAPROXY);
    case 'nginx':
      return startPeer(setup, base.certificates, NGINX);
    case 'culvert':
      return startCulvert(setup, { checkout: THIS_CHECKOUT, nodeFlags, flags: ['--workers', '1'] });
    case 'two-workers':
    case 'same-node':
    case 'short-cut':
      return startVariant(setup, name, { checkout: THIS_CHECKOUT, nodeFlags });
    case 'baseline':
      return startCulvert(setup, { checkout: base.options.baseline ?? THIS_CHECKOUT, nodeFlags, portOffset: 100 });
  }
}

async function prepare(name: ColumnName, index: number, base: Base): Promise<scenario.Bench> {
  progress(`start ${name}`);
  const directory = join(base.directory, name);
  mkdirSync(directory, { recursive: true });
  for (const [file, text] of Object.entries(applicationFiles(directory))) writeFileSync(join(directory, file), text);
  const { cleanup, topology, options } = base;
  const pods = await topology.addPair(index, name === 'same-node' || name === 'short-cut');
  const setup = { cleanup, topology, pods, directory };
  await startApplications(setup);
  const running = await startColumn(name, setup, base);
  const bench = { options, pods, running, samples: new Samples(), directory, cleanup };
  await sleep(1000);
  scenario.memoryAtStart(bench);
  await scenario.expectTunnel(bench);
  return bench;
}

/** Names the column in whatever goes wrong with it. */
async function inColumn<T>(name: ColumnName, work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    throw new Error(`${name}: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
  }
}

async function measure(benches: Benches, options: Options): Promise<void> {
  progress('warm up');
  await Promise.all([...benches].map(([name, bench]) => inColumn(name, scenario.warmUp(bench))));
  const measuresMemory = options.scenarios.includes('memory');
  for (const [name, bench] of benches) {
    if (!measuresMemory || isVariant(name)) continue;
    progress(`${name}: ${options.idleConnections} idle connections`);
    await inColumn(name, scenario.idleMemory(bench));
  }
  const turns = TURNS.filter((turn) => options.scenarios.includes(turn.group));
  for (let round = 1; round <= options.rounds; round++) {
    // Who is first is measured a little slower: the same code in two columns, always in one order, differed by 4 %.
    const columns = round % 2 === 1 ? [...benches] : [...benches].reverse();
    for (const [at, turn] of turns.entries()) {
      progress(`round ${round} of ${options.rounds}, scenario ${at + 1} of ${turns.length}: ${turn.group}`);
      for (const [name, bench] of columns) await inColumn(name, turn.run(bench));
    }
  }
  if (!measuresMemory) return;
  await sleep(options.settleSeconds * 1000);
  for (const [name, bench] of benches) if (!isVariant(name)) scenario.memoryAfterLoad(bench);
}

async function bench(options: Options, cleanup: Cleanup): Promise<void> {
  await ensureTools(options.columns);
  const directory = mkdtempSync(join(tmpdir(), 'culvert-bench-'));
  if (options.keepsFiles) progress(`files stay in ${directory}`);
  else cleanup.add(() => rmSync(directory, { recursive: true, force: true }));
  const certificates = await makePeerCertificates(directory);
  const topology = await buildTopology(cleanup, options.isPinned);
  const base: Base = { options, cleanup, topology, directory, certificates };

  const benches = new Map<ColumnName, scenario.Bench>();
  const prepared = options.columns.map(
    async (name, index) => [name, await inColumn(name, prepare(name, index + 1, base))] as const,
  );
  for (const [name, each] of await Promise.all(prepared)) benches.set(name, each);
  const noise = new Noise();
  await measure(benches, options);
  const othersShare = noise.othersShare();

  await Promise.all([...benches.values()].map(async (each) => each.running.stop?.()));

  const all = new Map([...benches].map(([name, each]) => [name, each.samples]));
  const results = new Map([...all].filter(([name]) => !isVariant(name)));
  const machine = { ...(await describeMachine()), othersShare };
  if (options.svgPath !== undefined) writeFileSync(options.svgPath, renderChart(results, machine));
  const tables = [machineLine(machine), renderTable(results), renderVariants(all, machine.cores)];
  const report = options.isJson ? renderJson(all, machine) : tables.filter((text) => text !== '').join('\n\n');
  process.stdout.write(`${report}\n`);
  progress('done');
}

async function main(): Promise<number> {
  const options = parseOptions(process.argv.slice(2));
  if (options === undefined) {
    process.stdout.write(HELP);
    return 0;
  }
  const cleanup = new Cleanup();
  cleanup.onSignals();
  try {
    await bench(options, cleanup);
    return 0;
  } finally {
    cleanup.run();
  }
}

try {
  process.exitCode = await main();
} catch (error) {
  process.stderr.write(`bench: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
}
