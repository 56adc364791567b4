/** The applications of the neighbour bench: a process each, inside a pod, all on the CPU that the agent has not. */
import type { ChildProcessByStdio } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, writeSync } from 'node:fs';
import { createInterface, type Interface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import type { LabPod } from '../../../src/cli/lab/lab.ts';
import { askForSlices } from '../../../src/sys/thread-priority.ts';

const ACTOR = fileURLToPath(new URL('./actor.ts', import.meta.url));
export const AGENT_CPU = '0';
const LOAD_CPU = '1';
/** Without threads that compile and collect: programs that share a CPU with others would wait for them. */
export const ALONE = ['--single-threaded'];
/** B's go first, as soon as they wake: its figures are to say what the agent does to it, not A's applications. */
const ORDER = { a: { nice: '-5', sliceMs: 20 }, b: { nice: '-20', sliceMs: 0 } } as const;
type Owner = keyof typeof ORDER;
type Application = ChildProcessByStdio<Writable, Readable, null>;

/** What A has done since it began. */
export interface Done {
  readonly connections: number;
  readonly failed: number;
  readonly bytes: number;
}

export const NOTHING_DONE: Done = { connections: 0, failed: 0, bytes: 0 };

function spawnIn(pod: LabPod, owner: Owner, argv: readonly string[]): Application {
  const { nice, sliceMs } = ORDER[owner];
  // Children have what their parent has.
  askForSlices(sliceMs);
  const child = pod.inside.spawn(['nice', '-n', nice, 'taskset', '-c', LOAD_CPU, ...argv], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  askForSlices(0);
  return child as Application;
}

function spawnActor(pod: LabPod, owner: Owner, argv: readonly string[]): Application {
  return spawnIn(pod, owner, [process.execPath, ...ALONE, ACTOR, ...argv]);
}

async function nextLine(child: Application): Promise<string> {
  const lines = createInterface(child.stdout);
  const [line] = (await once(lines, 'line')) as [string];
  lines.close();
  return line;
}

/**
 * CPUs that have nothing to do poll instead of halting: in a virtual machine it is the hypervisor who wakes a halted one, in its own
 * time, which whoever is alone pays and whoever is beside others does not (PM QoS, `/dev/cpu_dma_latency`).
 */
export function keepAwake(): Disposable {
  const fd = openSync('/dev/cpu_dma_latency', 'w');
  writeSync(fd, new Uint8Array(4));
  return { [Symbol.dispose]: () => closeSync(fd) };
}

/** Resolves when it listens. */
export async function serve(pod: LabPod, owner: Owner, port: number): Promise<Disposable> {
  const child = spawnActor(pod, owner, ['serve', String(port)]);
  await nextLine(child);
  return { [Symbol.dispose]: () => void child.kill('SIGKILL') };
}

/** B's client. */
export class Probe implements Disposable {
  readonly #child: Application;

  constructor(pod: LabPod, host: string, port: number) {
    this.#child = spawnActor(pod, 'b', ['probe', host, String(port)]);
  }

  [Symbol.dispose](): void {
    this.#child.kill('SIGKILL');
  }

  /** What each request took within so many seconds, ms. */
  async measure(seconds: number): Promise<readonly number[]> {
    const line = nextLine(this.#child);
    this.#child.stdin.write(`${seconds}\n`);
    return JSON.parse(await line) as readonly number[];
  }
}

/** A's client; it begins at once. */
export class Greedy implements AsyncDisposable {
  readonly #child: Application;
  readonly #reports: Interface;
  #done = NOTHING_DONE;

  constructor(pod: LabPod, argv: readonly string[]) {
    this.#child = spawnActor(pod, 'a', ['greedy', ...argv]);
    this.#reports = createInterface(this.#child.stdout);
    this.#reports.on('line', (line) => (this.#done = JSON.parse(line) as Done));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = once(this.#child, 'close');
    this.#child.kill('SIGKILL');
    await closed;
  }

  get done(): Done {
    return this.#done;
  }

  /** Resolves when nothing is under way any more. */
  async rest(): Promise<void> {
    this.#child.stdin.write('rest\n');
    for (let pending = 1; pending > 0; ) {
      const [line] = (await once(this.#reports, 'line')) as [string];
      ({ pending } = JSON.parse(line) as { readonly pending: number });
    }
  }

  goOn(): void {
    this.#child.stdin.write('go on\n');
  }
}

/** Peers of another node that shake hands with A's server without end: each handshake costs the agent a millisecond. */
export class Foreigners implements Disposable {
  readonly #children: readonly Application[];

  constructor(pod: LabPod, count: number, argv: readonly string[]) {
    const command = ['openssl', 's_time', '-new', '-tls1_3', '-time', '600', ...argv];
    this.#children = Array.from({ length: count }, () => spawnIn(pod, 'a', command));
    for (const { stdout } of this.#children) stdout.resume();
  }

  [Symbol.dispose](): void {
    this.#all('SIGKILL');
  }

  rest(): void {
    this.#all('SIGSTOP');
  }

  goOn(): void {
    this.#all('SIGCONT');
  }

  #all(signal: NodeJS.Signals): void {
    for (const child of this.#children) child.kill(signal);
  }
}
