/** Bulk load by iperf3, measured at the receiver; `-Z` sends by sendfile, which halves what the sender costs. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Address } from '../columns/column.ts';
import { type Place, run } from '../command.ts';

export interface IperfResult {
  readonly bytes: number;
  readonly bitsPerSecond: number;
}

export interface IperfLoad {
  readonly connections: number;
  readonly seconds: number;
  /** `up`: client to server. */
  readonly direction: 'up' | 'down';
}

interface IperfJson {
  readonly error?: string;
  readonly end?: { readonly sum_received?: { readonly bytes: number; readonly bits_per_second: number } };
}

export async function iperf3(place: Place, target: Address, load: IperfLoad): Promise<IperfResult> {
  const argv = ['iperf3', '-J', '-Z', '-c', target.host, '-p', String(target.port)];
  argv.push('-t', String(load.seconds), '-P', String(load.connections), ...(load.direction === 'down' ? ['-R'] : []));
  for (let attempt = 1; ; attempt++) {
    try {
      return parseIperf(await run(argv, place, (load.seconds + 30) * 1000));
    } catch (error) {
      // The server serves one test at a time, and may still be closing the one before.
      if (attempt === 5) throw error;
      await sleep(300);
    }
  }
}

function parseIperf(output: string): IperfResult {
  const json = JSON.parse(output) as IperfJson;
  const sum = json.end?.sum_received;
  if (json.error !== undefined || sum === undefined) throw new Error(`iperf3: ${json.error ?? 'no result'}`);
  return { bytes: sum.bytes, bitsPerSecond: sum.bits_per_second };
}
