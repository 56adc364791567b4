/**
 * Keep-alive request/response load by h2load (HTTP/1.1): about 10 µs of CPU a request, the same in every column.
 * wrk is a little cheaper, but it has no warm-up, and it "corrects" percentiles with made-up samples: 64 TLS handshakes
 * at the start of a run then show as a p99 of 100 ms. Here connections stand before measuring, and every latency counts.
 */
import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Address } from '../columns/column.ts';
import { type Place, run } from '../command.ts';

export interface RequestResult {
  readonly requestsPerSecond: number;
  readonly p50Us: number;
  readonly p99Us: number;
  /** CPU seconds of the proxies for each request of the measured part. */
  readonly cpuPerRequest: number;
}

export interface RequestLoad {
  readonly connections: number;
  readonly seconds: number;
  readonly directory: string;
  /** CPU seconds the proxies have used so far. */
  readonly readCpu: () => number;
}

/** Fills the request to about 1 KiB. */
export const PADDING = 'x'.repeat(920);

const WARM_UP_SECONDS = 1;
/** After the start of the tool, some way into the measured part: where the CPU window opens. */
const CPU_FROM_MS = WARM_UP_SECONDS * 1000 + 200;

export async function h2load(place: Place, target: Address, load: RequestLoad): Promise<RequestResult> {
  const log = join(load.directory, 'requests.log');
  rmSync(log, { force: true });
  const argv = ['h2load', '--h1', '-t1', `-c${load.connections}`, `-D${load.seconds}s`];
  argv.push(`--warm-up-time=${WARM_UP_SECONDS}s`, `--log-file=${log}`, '-H', `x-padding: ${PADDING}`);
  const done = run([...argv, `http://${target.host}:${target.port}/`], place, (load.seconds + 30) * 1000);
  await Promise.race([done, sleep(CPU_FROM_MS)]);
  const cpuFrom = { cpu: load.readCpu(), atUs: (performance.timeOrigin + performance.now()) * 1000 };
  expectClean(await done);
  const cpu = load.readCpu() - cpuFrom.cpu;
  return summarize(readFileSync(log, 'utf8'), { seconds: load.seconds, cpu, cpuFromUs: cpuFrom.atUs });
}

function expectClean(output: string): void {
  const failed = /(\d+) failed/.exec(output)?.[1];
  if (failed !== '0') throw new Error(`h2load: ${failed ?? 'unknown number of'} requests failed:\n${output}`);
}

interface Window {
  readonly seconds: number;
  readonly cpu: number;
  readonly cpuFromUs: number;
}

/** One line a request: start in µs since 1970, status, µs to the end of the answer. */
function summarize(log: string, window: Window): RequestResult {
  const latencies: number[] = [];
  let inCpuWindow = 0;
  for (const line of log.split('\n')) {
    const [startUs, status, tookUs] = line.split('\t').map(Number);
    if (startUs === undefined || tookUs === undefined) continue;
    // What the end of the run cut off is in the log without a status; `expectClean` has seen that nothing failed.
    if (status === 0) continue;
    if (status !== 200) throw new Error(`h2load: an answer was ${status}: ${line}`);
    latencies.push(tookUs);
    if (startUs + tookUs >= window.cpuFromUs) inCpuWindow++;
  }
  if (latencies.length === 0) throw new Error('h2load: no request was answered');
  latencies.sort((a, b) => a - b);
  const quantile = (q: number): number =>
    latencies[Math.min(latencies.length - 1, Math.floor(latencies.length * q))] ?? 0;
  return {
    requestsPerSecond: latencies.length / window.seconds,
    p50Us: quantile(0.5),
    p99Us: quantile(0.99),
    cpuPerRequest: window.cpu / inCpuWindow,
  };
}
