/** A named network namespace of a lab: programs run inside it as children of this process, without a wrapper. */
import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import type net from 'node:net';
import { type HostPort, ipFamily } from '../../base/ip.ts';
import { linuxSys } from '../../sys/linux.ts';
import { inNetns, openNetns } from '../../sys/netns.ts';
import type { Netns, ToolResult } from '../../sys/sys.ts';
import { systemClock } from '../../sys/system-clock.ts';
import { dialTcp } from '../../sys/tcp.ts';
import { runTool } from '../../sys/tool.ts';

const DIAL_MS = 2_000;

/** Where `ip netns` keeps its names. */
export const NETNS_FOLDER = '/var/run/netns';

export class LabNetns implements Disposable {
  readonly name: string;
  readonly path: string;
  readonly #handle: Netns;

  constructor(name: string) {
    this.name = name;
    this.path = `${NETNS_FOLDER}/${name}`;
    this.#handle = openNetns(this.path);
  }

  /** Runs a tool to its end, whatever its exit code. */
  exec(argv: readonly string[], input?: string): Promise<ToolResult> {
    return runTool(this.#handle, argv, input);
  }

  /** Runs `ip -batch`; rejects with what it said when a command fails. */
  async ip(commands: readonly string[]): Promise<void> {
    const { code, stderr } = await this.exec(['ip', '-batch', '-'], `${commands.join('\n')}\n`);
    if (code !== 0) throw new Error(`ip in ${this.name}: ${stderr.trim()}`);
  }

  /** The PID is that of the program itself. It is killed with the lab. */
  spawn(argv: readonly string[], options: SpawnOptions): ChildProcess {
    const [file = '', ...args] = argv;
    return this.run(() => spawn(file, args, options));
  }

  /** A TCP connection from inside; the caller owns the socket. */
  dial(to: HostPort, timeoutMs = DIAL_MS): Promise<net.Socket> {
    return dialTcp(linuxSys, this.#handle, to, { family: ipFamily(to.ip) }, { timeoutMs, clock: systemClock });
  }

  /** Runs `inside` synchronously on this thread, inside the namespace. */
  run<T>(inside: () => T): T {
    return inNetns(this.#handle, inside);
  }

  /** Keys as paths below `/proc/sys/net`. */
  sysctl(values: Readonly<Record<string, string>>): void {
    this.run(() => {
      for (const [key, value] of Object.entries(values)) writeFileSync(`/proc/sys/net/${key}`, value);
    });
  }

  [Symbol.dispose](): void {
    this.#handle[Symbol.dispose]();
  }
}
