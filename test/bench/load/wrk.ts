/** New-connection load by wrk, which opens a new connection whenever an answer says `Connection: close`. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Address } from '../columns/column.ts';
import { type Place, run } from '../command.ts';
import { PADDING } from './h2load.ts';

export interface ConnectionResult {
  readonly connections: number;
  readonly seconds: number;
}

export interface ConnectionLoad {
  /** Clients, each with one connection at a time. */
  readonly clients: number;
  readonly seconds: number;
  readonly directory: string;
}

/** Only `done` is defined: wrk then replays one prepared request and never enters Lua while measuring. */
const SCRIPT = `
done = function(summary)
  local e = summary.errors
  io.write(string.format('RESULT %d %d %d\\n', summary.requests, summary.duration,
    e.connect + e.read + e.write + e.status + e.timeout))
end
`;

export async function wrk(place: Place, target: Address, load: ConnectionLoad): Promise<ConnectionResult> {
  const script = join(load.directory, 'wrk.lua');
  writeFileSync(script, SCRIPT);
  const argv = ['wrk', '-t1', `-c${load.clients}`, `-d${load.seconds}s`, '--timeout', '5s', '-s', script];
  argv.push('-H', `X-Padding: ${PADDING}`, '-H', 'Connection: close');
  const output = await run([...argv, `http://${target.host}:${target.port}/`], place, (load.seconds + 30) * 1000);
  return parseWrk(output);
}

function parseWrk(output: string): ConnectionResult {
  const found = /RESULT (\d+) (\d+) (\d+)/.exec(output);
  if (found === null) throw new Error(`wrk printed no result:\n${output}`);
  const [connections = 0, micros = 0, errors = 0] = found.slice(1).map(Number);
  if (connections === 0 || errors > 0) throw new Error(`wrk: ${connections} answers, ${errors} errors`);
  return { connections, seconds: micros / 1e6 };
}
