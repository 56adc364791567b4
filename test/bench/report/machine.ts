/** What the figures were taken on: without it no figure means anything. */

import { existsSync } from 'node:fs';
import { availableParallelism, cpus, release, totalmem } from 'node:os';
import { run } from '../command.ts';

export interface Machine {
  readonly cpu: string;
  readonly cores: number;
  readonly memoryGib: number;
  readonly kernel: string;
  readonly node: string;
  readonly haproxy: string;
  readonly nginx: string;
}

export interface Conditions extends Machine {
  /** The share of all cores that processes outside the bench used meanwhile. */
  readonly othersShare: number;
}

async function version(argv: readonly [string, ...string[]]): Promise<string> {
  if (!existsSync(argv[0])) return 'absent';
  // `nginx -v` writes to standard error.
  const text = await run(['sh', '-c', `${argv.join(' ')} 2>&1`]);
  return /\d+\.\d+[\w.+~-]*/.exec(text)?.[0] ?? 'unknown';
}

export async function describeMachine(): Promise<Machine> {
  return {
    cpu: cpus()[0]?.model ?? 'unknown',
    cores: availableParallelism(),
    memoryGib: Math.round(totalmem() / 2 ** 30),
    kernel: release(),
    node: process.version,
    haproxy: await version(['/usr/sbin/haproxy', '-v']),
    nginx: await version(['/usr/sbin/nginx', '-v']),
  };
}

export function machineLine(machine: Conditions): string {
  const { cpu, cores, memoryGib, kernel, node, haproxy, nginx, othersShare } = machine;
  const noise = `${(othersShare * 100).toFixed(0)} % of the machine used by others`;
  return `${cores} cores of ${cpu}, ${memoryGib} GiB, Linux ${kernel}; Node ${node}, HAProxy ${haproxy}, nginx ${nginx}; ${noise}`;
}
