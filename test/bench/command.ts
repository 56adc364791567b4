/** Runs tools and daemons inside a network namespace, and stops what it started, by process id only. */
import { execFile, spawn } from 'node:child_process';
import { openSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Cleanup } from './cleanup.ts';
import { processTree } from './proc.ts';

/** Where a command runs: a namespace, and optionally the one core its node owns. */
export interface Place {
  readonly netns: string;
  readonly cpu?: number;
}

function placed(place: Place | undefined, argv: readonly string[]): string[] {
  if (place === undefined) return [...argv];
  const pin = place.cpu === undefined ? [] : ['taskset', '-c', String(place.cpu)];
  return ['nsenter', `--net=/run/netns/${place.netns}`, ...pin, ...argv];
}

/** Standard output of a command that must succeed. */
export function run(argv: readonly string[], place?: Place, timeoutMs = 60_000): Promise<string> {
  const [file = '', ...args] = placed(place, argv);
  return new Promise((resolve, reject) => {
    execFile(file, args, { timeout: timeoutMs, maxBuffer: 64 << 20 }, (error, stdout, stderr) => {
      if (error === null) resolve(stdout);
      else reject(new Error(`${argv.slice(0, 6).join(' ')}: ${stderr.trim() || stdout.trim() || error.message}`));
    });
  });
}

export interface Daemon {
  readonly pid: number;
  readonly logPath: string;
  hasExited(): boolean;
}

function killTree(pid: number): void {
  for (const each of processTree([pid])) {
    try {
      process.kill(each, 'SIGKILL');
    } catch {
      // Gone between listing and killing: what we wanted.
    }
  }
}

export interface DaemonOptions {
  readonly place: Place;
  readonly logPath: string;
}

/** Started in the foreground form of each tool, so the process id is the daemon's own (`nsenter` and `taskset` exec). */
export function startDaemon(cleanup: Cleanup, argv: readonly string[], options: DaemonOptions): Daemon {
  const [file = '', ...args] = placed(options.place, argv);
  const log = openSync(options.logPath, 'a');
  const child = spawn(file, args, { stdio: ['ignore', log, log] });
  const pid = child.pid;
  if (pid === undefined) throw new Error(`cannot start ${file}`);
  let exited = false;
  child.once('exit', () => {
    exited = true;
  });
  cleanup.add(() => {
    if (!exited) killTree(pid);
  });
  return { pid, logPath: options.logPath, hasExited: () => exited };
}

/** Ends a daemon politely, so that a CPU profile or a pid file is written. */
export async function stopDaemon(daemon: Daemon, graceMs = 5_000): Promise<void> {
  const untilMs = performance.now() + graceMs;
  if (!daemon.hasExited()) process.kill(daemon.pid, 'SIGTERM');
  while (!daemon.hasExited() && performance.now() < untilMs) await sleep(20);
  if (!daemon.hasExited()) killTree(daemon.pid);
}

/** Polls until `probe` stops throwing; many agents that start at once on a busy machine take their time. A daemon that died meanwhile is reported with the end of its log. */
export async function until(
  what: string,
  daemons: readonly Daemon[],
  probe: () => Promise<unknown>,
  timeoutMs = 90_000,
): Promise<void> {
  const deadlineMs = performance.now() + timeoutMs;
  for (;;) {
    try {
      await probe();
      return;
    } catch (error) {
      const dead = daemons.find((daemon) => daemon.hasExited());
      if (dead === undefined && performance.now() < deadlineMs) {
        await sleep(100);
        continue;
      }
      const tail = daemons.map((daemon) => readFileSync(daemon.logPath, 'utf8').slice(-1500)).join('\n');
      throw new Error(`${what} did not become ready: ${String(error)}\n${tail}`, { cause: error });
    }
  }
}
