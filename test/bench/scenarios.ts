/** The scenarios: each puts one load on one column and adds what it measured to that column's samples. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Cleanup } from './cleanup.ts';
import { HTTP_PORT, type Running } from './columns/column.ts';
import { run } from './command.ts';
import { h2load } from './load/h2load.ts';
import { holdIdle } from './load/idle.ts';
import { iperf3 } from './load/iperf3.ts';
import { wrk } from './load/wrk.ts';
import { type MetricName, median, type Samples } from './metrics.ts';
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

function request(bench: Bench, connections: number, seconds: number): ReturnType<typeof h2load> {
  const { pods, running, directory } = bench;
  const readCpu = (): number => cpuSeconds(running.processIds);
  return h2load(pods.client, running.targets.http, { connections, seconds, directory, readCpu });
}

/** 16 clients, each one connection after another: connect, 1 KiB there and back, close. */
function connect(bench: Bench, seconds: number): ReturnType<typeof wrk> {
  const { pods, running, directory } = bench;
  return wrk(pods.client, running.targets.http, { clients: 16, seconds, directory });
}

export async function latency(bench: Bench): Promise<void> {
  const result = await request(bench, 1, bench.options.requestSeconds);
  bench.samples.add('p50Us1', result.p50Us);
  bench.samples.add('p99Us1', result.p99Us);
}

export async function requests(bench: Bench): Promise<void> {
  const result = await request(bench, 64, bench.options.requestSeconds);
  bench.samples.add('requestsPerSecond', result.requestsPerSecond);
  bench.samples.add('p99Us64', result.p99Us);
  if (hasProxies(bench)) bench.samples.add('cpuPer100k', result.cpuPerRequest * 100_000);
}

export async function connections(bench: Bench): Promise<void> {
  const { result, cpu } = await spending(bench, () => connect(bench, bench.options.requestSeconds));
  bench.samples.add('connectionsPerSecond', result.connections / result.seconds);
  if (hasProxies(bench)) bench.samples.add('cpuPer1kConnections', cpu / (result.connections / 1000));
}

/** Run once per column before anything is kept, so that no column is measured cold: code, caches, tunnels, ARP. */
export async function warmUp(bench: Bench): Promise<void> {
  const { pods, running } = bench;
  await connect(bench, 2);
  await request(bench, 64, 2);
  for (const direction of ['up', 'down'] as const) {
    await iperf3(pods.client, running.targets.iperf, { connections: 1, seconds: 1, direction });
  }
}

/** Proves that the column carries what it claims to: answers come, and over its tunnel port. */
export async function expectTunnel(bench: Bench): Promise<void> {
  const { pods, running } = bench;
  const load = request(bench, 1, 1);
  const port = running.tunnelPort ?? HTTP_PORT;
  const connected = async (local: number): Promise<boolean> =>
    (await run(['ss', '-Htn', 'state', 'established', `sport = :${local}`], pods.server)).trim() !== '';
  let isUsed = false;
  for (let looks = 0; looks < 15 && !isUsed; looks += 1) {
    await sleep(50);
    isUsed = await connected(port);
  }
  const isLeak = running.unusedPort !== undefined && (await connected(running.unusedPort));
  await load;
  if (!isUsed) throw new Error(`nothing is connected to port ${port} of the server pod`);
  if (isLeak) throw new Error(`something is connected to port ${running.unusedPort} of the server pod`);
}

export function memoryAtStart(bench: Bench): void {
  if (hasProxies(bench)) bench.samples.add('rssStartMib', memory(bench.running.processIds).rssBytes / MIB);
}

/** Growth while N connections idle, after a warm-up has paid for code and buffers that every proxy needs once. */
export async function idleMemory(bench: Bench): Promise<void> {
  const { options, running, pods, directory } = bench;
  if (!hasProxies(bench)) return;
  await sleep(options.settleSeconds * 1000);
  const rssOfEach = (): number[] => running.processIds.map((id) => memory([id]).rssBytes);
  const before = rssOfEach();
  const load = { place: pods.client, target: running.targets.http, connections: options.idleConnections };
  const held = await holdIdle(bench.cleanup, { ...load, logPath: `${directory}/idle.log` });
  await sleep(options.settleSeconds * 1000);
  const growth = rssOfEach().map((bytes, at) => (bytes - (before[at] ?? 0)) / options.idleConnections / 1024);
  await held.release();
  bench.samples.add('idleKib', sum(growth));
  bench.samples.add('idleLargerKib', Math.max(...growth));
  bench.samples.add('rssIdleMib', sum(before) / MIB);
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

export function memoryAfterLoad(bench: Bench): void {
  if (!hasProxies(bench)) return;
  const after = memory(bench.running.processIds).rssBytes / MIB;
  const idle = median(bench.samples.of('rssIdleMib')) ?? after;
  bench.samples.add('rssAfterLoadMib', after);
  bench.samples.add('rssAfterOverIdle', after / idle);
}
