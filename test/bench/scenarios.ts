/** The scenarios: each puts one load on one column and adds what it measured to that column's samples. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Cleanup } from './cleanup.ts';
import { HTTP_PORT, type Running } from './columns/column.ts';
import { run } from './command.ts';
import { holdIdle } from './load/idle.ts';
import { iperf3 } from './load/iperf3.ts';
import { wrk } from './load/wrk.ts';
import { median, type MetricName, type Samples } from './metrics.ts';
import type { Options } from './options.ts';
import { cpuSeconds, memory } from './proc.ts';
import type { PodPair } from './topology.ts';

export interface Bench {
  readonly options: Options;
  readonly pods: PodPair;
  readonly running: Running;
  readonly samples: Samples;
  readonly directory: string;
  readonly cleanup: Cleanup;
}

const GIB = 2 ** 30;
const MIB = 2 ** 20;

/** What the proxies under test spend while `load` runs. */
async function spending<T>(bench: Bench, load: () => Promise<T>): Promise<{ result: T; cpu: number }> {
  const before = cpuSeconds(bench.running.processIds);
  const result = await load();
  return { result, cpu: cpuSeconds(bench.running.processIds) - before };
}

function hasProxies(bench: Bench): boolean {
  return bench.running.processIds.length > 0;
}

export interface BulkLoad {
  readonly direction: 'up' | 'down';
  readonly connections: 1 | 8;
}

export async function bulk(bench: Bench, { direction, connections }: BulkLoad): Promise<void> {
  const load = { direction, connections, seconds: bench.options.bulkSeconds };
  const { result, cpu } = await spending(bench, () => iperf3(bench.pods.client, bench.running.targets.iperf, load));
  const name: MetricName = `${direction}Gbps${connections}`;
  bench.samples.add(name, result.bitsPerSecond / 1e9);
  if (hasProxies(bench)) bench.samples.add('cpuPerGib', cpu / (result.bytes / GIB));
}

function request(bench: Bench, connections: number, isNewConnectionEach: boolean): ReturnType<typeof wrk> {
  const load = { connections, isNewConnectionEach, seconds: bench.options.requestSeconds };
  return wrk(bench.pods.client, bench.running.targets.http, bench.directory, load);
}

function expectClean(what: string, errors: number): void {
  if (errors > 0) process.stderr.write(`bench: ${errors} errors in ${what}: its figures are not to be trusted\n`);
}

export async function latency(bench: Bench): Promise<void> {
  const result = await request(bench, 1, false);
  expectClean('latency', result.errors);
  bench.samples.add('p50Us1', result.p50Us);
  bench.samples.add('p99Us1', result.p99Us);
}

export async function requests(bench: Bench): Promise<void> {
  const { result, cpu } = await spending(bench, () => request(bench, 64, false));
  expectClean('requests', result.errors);
  bench.samples.add('requestsPerSecond', result.requests / result.seconds);
  bench.samples.add('p99Us64', result.p99Us);
  if (hasProxies(bench)) bench.samples.add('cpuPer100k', cpu / (result.requests / 100_000));
}

/** 16 clients, each one connection after another: connect, 1 KiB there and back, close. */
export async function connections(bench: Bench): Promise<void> {
  const { result, cpu } = await spending(bench, () => request(bench, 16, true));
  expectClean('connections', result.errors);
  bench.samples.add('connectionsPerSecond', result.requests / result.seconds);
  if (hasProxies(bench)) bench.samples.add('cpuPer1kConnections', cpu / (result.requests / 1000));
}

/** Run once per column before anything is kept, so that no column is measured cold: code, caches, tunnels, ARP. */
export async function warmUp(bench: Bench): Promise<void> {
  const { pods, running, directory } = bench;
  await wrk(pods.client, running.targets.http, directory, { connections: 16, seconds: 1, isNewConnectionEach: true });
  await wrk(pods.client, running.targets.http, directory, { connections: 64, seconds: 1 });
  for (const direction of ['up', 'down'] as const) {
    await iperf3(pods.client, running.targets.iperf, { connections: 1, seconds: 1, direction });
  }
}

/** Proves that the column carries what it claims to: answers come, and over its tunnel port. */
export async function expectTunnel(bench: Bench): Promise<void> {
  const { pods, running, directory } = bench;
  const load = wrk(pods.client, running.targets.http, directory, { connections: 2, seconds: 1 });
  await sleep(500);
  const port = running.tunnelPort ?? HTTP_PORT;
  const sockets = await run(['ss', '-Htn', 'state', 'established', `sport = :${port}`], pods.server);
  const { requests: answered, errors } = await load;
  if (answered === 0 || errors > 0) throw new Error(`${answered} answers, ${errors} errors in the trial run`);
  if (sockets.trim() === '') throw new Error(`nothing is connected to port ${port} of the server pod`);
}

export function memoryAtStart(bench: Bench): void {
  if (hasProxies(bench)) bench.samples.add('rssStartMib', memory(bench.running.processIds).rssBytes / MIB);
}

/** Growth while N connections idle, after a warm-up has paid for code and buffers that every proxy needs once. */
export async function idleMemory(bench: Bench): Promise<void> {
  const { options, running, pods, directory } = bench;
  if (!hasProxies(bench)) return;
  await sleep(options.settleSeconds * 1000);
  const before = memory(running.processIds).rssBytes;
  const load = { place: pods.client, target: running.targets.http, connections: options.idleConnections };
  const held = await holdIdle(bench.cleanup, { ...load, logPath: `${directory}/idle.log` });
  await sleep(options.settleSeconds * 1000);
  const growth = memory(running.processIds).rssBytes - before;
  await held.release();
  bench.samples.add('idleKib', growth / options.idleConnections / 1024);
  bench.samples.add('rssIdleMib', before / MIB);
}

export function memoryAfterLoad(bench: Bench): void {
  if (!hasProxies(bench)) return;
  const after = memory(bench.running.processIds).rssBytes / MIB;
  const idle = median(bench.samples.of('rssIdleMib')) ?? after;
  bench.samples.add('rssAfterLoadMib', after);
  bench.samples.add('rssAfterOverIdle', after / idle);
}
