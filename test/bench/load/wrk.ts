/** Request/response load by wrk: a C event loop that costs about 4 µs a request, the same in every column. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Address } from '../columns/column.ts';
import { type Place, run } from '../command.ts';

export interface WrkResult {
  readonly requests: number;
  readonly seconds: number;
  readonly p50Us: number;
  readonly p99Us: number;
  readonly errors: number;
}

/** Only `done` is defined: wrk then replays one prepared request and never enters Lua while measuring. */
const SCRIPT = `
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('RESULT %d %d %d %d %d\\n', summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), e.connect + e.read + e.write + e.status + e.timeout))
end
`;

/** Fills the request to about 1 KiB. */
const PADDING = 'x'.repeat(920);

export interface WrkLoad {
  readonly connections: number;
  readonly seconds: number;
  /** Every request on a connection of its own: connect, request, answer, close. */
  readonly isNewConnectionEach?: boolean;
}

export async function wrk(place: Place, target: Address, directory: string, load: WrkLoad): Promise<WrkResult> {
  const script = join(directory, 'wrk.lua');
  writeFileSync(script, SCRIPT);
  const argv = ['wrk', '-t1', `-c${load.connections}`, `-d${load.seconds}s`, '--timeout', '5s', '-s', script];
  argv.push('-H', `X-Padding: ${PADDING}`);
  if (load.isNewConnectionEach === true) argv.push('-H', 'Connection: close');
  const output = await run([...argv, `http://${target.host}:${target.port}/`], place, (load.seconds + 30) * 1000);
  return parseWrk(output);
}

export function parseWrk(output: string): WrkResult {
  const found = /RESULT (\d+) (\d+) (\d+) (\d+) (\d+)/.exec(output);
  if (found === null) throw new Error(`wrk printed no result:\n${output}`);
  const [requests = 0, micros = 0, p50Us = 0, p99Us = 0, errors = 0] = found.slice(1).map(Number);
  return { requests, seconds: micros / 1e6, p50Us, p99Us, errors };
}
