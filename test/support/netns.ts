/** Pods made of network namespaces on one wire (a bridge in a namespace of its own): nothing here touches the host's network. */
import { type ChildProcess, execFile, spawn, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import type net from 'node:net';
import { createInterface } from 'node:readline';
import { formatHostPort, type HostPort } from '../../src/base/ip.ts';
import { linuxSys } from '../../src/sys/linux.ts';
import type { DialOptions, ListenOptions, Netns } from '../../src/sys/sys.ts';
import { systemClock } from '../../src/sys/system-clock.ts';
import { dialTcp, listenOn } from '../../src/sys/tcp.ts';

/** Reason to skip on a laptop. CI sets MESH_REQUIRE_ROOT=1, so there the test runs or fails; it never passes unrun. */
export const skipWithoutRoot =
  process.getuid?.() === 0 || process.env['MESH_REQUIRE_ROOT'] === '1'
    ? false
    : 'needs root to create network namespaces';

export type Families = 'v4' | 'v6' | 'dual';

export interface ToolOutput {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

const alive = new Set<string>();
process.once('exit', () => {
  for (const name of alive) spawnSync('ip', ['netns', 'del', name]);
});
// The test runner ends a file that hangs with SIGTERM; only a real exit runs the clean-up above.
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1));

/** A namespace with a random name, gone on dispose, also when the process ends early. */
export class TestNetns implements AsyncDisposable {
  readonly name: string;
  readonly path: string;
  readonly #children = new Set<ChildProcess>();
  #handle: Netns | undefined;

  private constructor(name: string) {
    this.name = name;
    this.path = `/var/run/netns/${name}`;
  }

  static async create(families: Families = 'dual'): Promise<TestNetns> {
    const netns = new TestNetns(`cvt${randomBytes(5).toString('hex')}`);
    await tool('ip', ['netns', 'add', netns.name]);
    alive.add(netns.name);
    if (families === 'v4') {
      await netns.exec([
        'sh',
        '-c',
        'for f in all default lo; do echo 1 > /proc/sys/net/ipv6/conf/$f/disable_ipv6; done',
      ]);
    }
    await netns.exec(['ip', 'link', 'set', 'lo', 'up']);
    return netns;
  }

  /** Opened once, closed on dispose. */
  get handle(): Netns {
    this.#handle ??= linuxSys.openNetns(this.path);
    return this.#handle;
  }

  /** Runs a tool inside to its end; rejects unless it exits with 0. */
  async exec(argv: readonly string[], input = ''): Promise<string> {
    const { code, stdout, stderr } = await this.tryExec(argv, input);
    if (code !== 0) throw new Error(`${argv.join(' ')} in ${this.name}: exit ${code}: ${stderr}`);
    return stdout;
  }

  tryExec(argv: readonly string[], input = ''): Promise<ToolOutput> {
    return toolOutput('nsenter', [`--net=${this.path}`, ...argv], input);
  }

  /** Starts a program inside and resolves once it has printed a line; killed on dispose. */
  async start(argv: readonly string[]): Promise<{ readonly child: ChildProcess; readonly firstLine: string }> {
    const child = spawn('nsenter', [`--net=${this.path}`, ...argv], { stdio: ['ignore', 'pipe', 'inherit'] });
    this.#children.add(child);
    const exited = once(child, 'exit').then(([code]) => {
      throw new Error(`${argv.join(' ')} ended with ${String(code)} before it printed a line`);
    });
    const line = once(createInterface(child.stdout), 'line') as Promise<[string]>;
    const [firstLine] = await Promise.race([line, exited]);
    exited.catch(() => {});
    return { child, firstLine };
  }

  /** Starts a script of this repository with the Node that runs the tests. */
  startNode(script: string, ...args: string[]): ReturnType<TestNetns['start']> {
    return this.start([process.execPath, script, ...args]);
  }

  runNode(script: string, ...args: string[]): Promise<string> {
    return this.exec([process.execPath, script, ...args]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const child of this.#children) await ended(child);
    this.#handle?.[Symbol.dispose]();
    alive.delete(this.name);
    await toolOutput('ip', ['netns', 'del', this.name]);
  }
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exit = once(child, 'exit');
  child.kill('SIGKILL');
  await exit;
}

/** A namespace with an `eth0` on the wire. */
export interface TestPod {
  readonly netns: TestNetns;
  /** Empty when the wire has no such family. */
  readonly ip4: string;
  readonly ip6: string;
  /** IPv4 unless the wire is IPv6-only. */
  readonly ip: string;
}

/** One layer-2 segment; pods can reach each other over it and nothing else. */
export class Wire implements AsyncDisposable {
  readonly families: Families;
  readonly #bridge: TestNetns;
  readonly #undo = new AsyncDisposableStack();
  #pods = 0;

  private constructor(bridge: TestNetns, families: Families) {
    this.#bridge = this.#undo.use(bridge);
    this.families = families;
  }

  static async create(families: Families = 'dual'): Promise<Wire> {
    const bridge = await TestNetns.create('v4');
    const wire = new Wire(bridge, families);
    await bridge.exec(['ip', '-batch', '-'], 'link add br0 type bridge\nlink set br0 up\n');
    return wire;
  }

  /** The namespace of the bridge, for sniffing everything on the wire (`tcpdump -i br0`). */
  get netns(): TestNetns {
    return this.#bridge;
  }

  async addPod(): Promise<TestPod> {
    const index = ++this.#pods;
    const netns = this.#undo.use(await TestNetns.create(this.families));
    const ip4 = this.families === 'v6' ? '' : `10.77.0.${index}`;
    const ip6 = this.families === 'v4' ? '' : `fd77::${index.toString(16)}`;
    const port = `p${index}`;
    await this.#bridge.exec(
      ['ip', '-batch', '-'],
      `link add ${port} type veth peer name eth0 netns ${netns.name}\nlink set ${port} master br0 up\n`,
    );
    const addresses = [
      ...(ip4 === '' ? [] : [`addr add ${ip4}/24 dev eth0`]),
      ...(ip6 === '' ? [] : [`addr add ${ip6}/64 dev eth0 nodad`]),
    ];
    // As in a cluster, every address has a route: a reply to a client far away is routed before it is rerouted by its mark.
    await netns.exec(['ip', '-batch', '-'], [...addresses, 'link set eth0 up', ''].join('\n'));
    if (ip4 !== '') await netns.exec(['ip', 'route', 'add', 'default', 'dev', 'eth0']);
    if (ip6 !== '') await netns.exec(['ip', '-6', 'route', 'add', 'default', 'dev', 'eth0']);
    return { netns, ip4, ip6, ip: ip4 === '' ? ip6 : ip4 };
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#undo.disposeAsync();
  }
}

/** A server of this process whose socket lives in the namespace, as an application there would have it (no mark). */
export async function serveIn(
  netns: TestNetns,
  options: Partial<ListenOptions>,
  onConnection: (socket: net.Socket) => void,
): Promise<AsyncDisposable & { readonly port: number; readonly server: net.Server }> {
  const { fd } = linuxSys.listenTcp(netns.handle, { address: '::', port: 0, ...options });
  const open = new Set<net.Socket>();
  const server = listenOn(fd, {
    onConnection(socket) {
      open.add(socket);
      socket.once('close', () => open.delete(socket));
      onConnection(socket);
    },
  });
  await once(server, 'listening');
  const { port } = server.address() as net.AddressInfo;
  return {
    port,
    server,
    async [Symbol.asyncDispose]() {
      for (const socket of open) socket.destroy();
      server.close();
      await once(server, 'close');
    },
  };
}

/** Dials as an application of the namespace would. Rejects with a `MeshError` when refused. */
export function dialFrom(netns: TestNetns, to: HostPort, options: Partial<DialOptions> = {}): Promise<net.Socket> {
  const family = to.ip.includes(':') ? 6 : 4;
  return dialTcp(linuxSys, netns.handle, to, { family, ...options }, { timeoutMs: 5_000, clock: systemClock });
}

/** Connects and returns all the server says until it ends; the errno or code when it fails. */
export async function readFrom(netns: TestNetns, to: HostPort): Promise<string> {
  const socket = await dialFrom(netns, to).catch((error: Error) => error);
  if (socket instanceof Error) return `refused: ${socket.message} (${formatHostPort(to)})`;
  const chunks: Buffer[] = [];
  socket.on('data', (chunk: Buffer) => chunks.push(chunk)).resume();
  await once(socket, 'end').catch(() => undefined);
  socket.destroy();
  return Buffer.concat(chunks).toString();
}

async function tool(file: string, args: readonly string[]): Promise<void> {
  const { code, stderr } = await toolOutput(file, args);
  if (code !== 0) throw new Error(`${file} ${args.join(' ')}: exit ${code}: ${stderr}`);
}

function toolOutput(file: string, args: readonly string[], input = ''): Promise<ToolOutput> {
  const { promise, resolve } = Promise.withResolvers<ToolOutput>();
  const child = execFile(file, args, { maxBuffer: 64 * 1024 * 1024 }, (error, stdout, stderr) => {
    resolve({ code: error === null ? 0 : typeof error.code === 'number' ? error.code : -1, stdout, stderr });
  });
  child.stdin?.on('error', () => {});
  child.stdin?.end(input);
  return promise;
}
