/**
 * A real mesh for tests: a lab of nodes and pods, one agent process per node, applications inside the pods' namespaces
 * served by the test itself. Nothing is faked; everything goes away on dispose.
 */
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, renameSync, writeFileSync } from 'node:fs';
import type net from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { HostPort } from '../../src/base/ip.ts';
import { ipFamily } from '../../src/base/ip.ts';
import { createLab, type Lab, type LabNode, type LabPod } from '../../src/cli/lab/lab.ts';
import type { Family } from '../../src/cli/lab/plan.ts';
import { linuxSys } from '../../src/sys/linux.ts';
import { listenOn } from '../../src/sys/tcp.ts';

const MAIN = new URL('../../src/cli/main.ts', import.meta.url).pathname;
const NAMESPACE = 'demo';

export type LogLine = Readonly<Record<string, unknown>> & { readonly message: string; readonly scope: string };

/** One agent process and everything it has logged. */
export class AgentProcess implements AsyncDisposable {
  readonly node: LabNode;
  readonly lines: LogLine[] = [];
  readonly stderr: string[] = [];
  readonly #child: ChildProcess;
  readonly #waiters = new Set<() => void>();
  readonly exited: Promise<number>;

  constructor(node: LabNode, argv: readonly string[], env: Readonly<Record<string, string>> = {}) {
    this.node = node;
    this.#child = node.inside.spawn([process.execPath, MAIN, 'agent', ...argv], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, NODE_OPTIONS: '', ...env },
    });
    this.exited = once(this.#child, 'exit').then(
      ([code, signal]) => (code as number | null) ?? (signal === null ? 0 : 128),
    );
    if (this.#child.stdout) createInterface(this.#child.stdout).on('line', (line) => this.#take(line));
    if (this.#child.stderr) createInterface(this.#child.stderr).on('line', (line) => this.stderr.push(line));
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  /** The first line, past or future, for which `test` holds. */
  async line(test: (line: LogLine) => boolean, what = 'a log line'): Promise<LogLine> {
    for (;;) {
      const found = this.lines.find(test);
      if (found !== undefined) return found;
      await this.#next(what);
    }
  }

  /** Access-log lines of ended connections, of one direction. */
  access(direction: 'inbound' | 'outbound'): LogLine[] {
    return this.lines.filter((line) => line.scope === 'access' && line['direction'] === direction);
  }

  async get(path: string, port = 15_020): Promise<string> {
    const { code, stdout, stderr } = await this.node.inside.exec([
      'curl',
      '-s',
      '-m',
      '5',
      `http://127.0.0.1:${port}${path}`,
    ]);
    if (code !== 0) throw new Error(`curl ${path}: ${stderr}`);
    return stdout;
  }

  async post(path: string): Promise<string> {
    const argv = ['curl', '-s', '-m', '30', '-X', 'POST', `http://127.0.0.1:15000${path}`];
    return (await this.node.inside.exec(argv)).stdout;
  }

  kill(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) this.#child.kill('SIGKILL');
    await this.exited;
  }

  #take(line: string): void {
    try {
      const parsed: unknown = JSON.parse(line);
      if (typeof parsed === 'object' && parsed !== null) this.lines.push(parsed as LogLine);
    } catch {
      this.stderr.push(line);
    }
    for (const wake of [...this.#waiters]) wake();
  }

  #next(what: string): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const timer = setTimeout(
      () =>
        reject(
          new Error(
            `no ${what} in 15 s; stderr: ${this.stderr.join(' | ')}; last lines:\n${this.lines
              .slice(-8)
              .map((l) => JSON.stringify(l))
              .join('\n')}`,
          ),
        ),
      15_000,
    );
    this.#waiters.add(resolve);
    return promise.finally(() => {
      clearTimeout(timer);
      this.#waiters.delete(resolve);
    });
  }
}

export interface MeshWorkload {
  readonly [field: string]: unknown;
}

export interface MeshDocument {
  readonly workloads?: readonly MeshWorkload[];
  readonly services?: readonly MeshWorkload[];
  readonly policies?: readonly MeshWorkload[];
}

export interface MeshOptions {
  readonly family?: Family;
  /** Node → pods. Default: two nodes of two pods and one outside pod that is never enrolled. */
  readonly nodes?: Readonly<Record<string, readonly string[]>>;
  /** Pods to enrol; default: all but those whose name starts with `outside`. */
  readonly enrolled?: readonly string[];
  /** Nodes that run an agent; default: those with an enrolled pod. */
  readonly env?: Readonly<Record<string, string>>;
  readonly mesh?: (lab: Lab) => MeshDocument;
}

const DEFAULT_NODES = { n1: ['client', 'other'], n2: ['server', 'server2'], n3: ['outside'] };

export class TestMesh implements AsyncDisposable {
  readonly lab: Lab;
  readonly agents = new Map<string, AgentProcess>();
  readonly #options: MeshOptions;
  readonly #servers: net.Server[] = [];

  private constructor(lab: Lab, options: MeshOptions) {
    this.lab = lab;
    this.#options = options;
  }

  /** Resolves when every agent has captured its pods. */
  static async start(options: MeshOptions = {}): Promise<TestMesh> {
    const nodes = Object.entries(options.nodes ?? DEFAULT_NODES).map(([name, pods]) => ({ name, pods }));
    const mesh = new TestMesh(await createLab({ nodes, family: options.family ?? 'ipv4' }), options);
    try {
      mesh.write(options.mesh?.(mesh.lab) ?? {});
      const enrolled = options.enrolled ?? [...mesh.lab.pods.keys()].filter((name) => !name.startsWith('outside'));
      mesh.enrol(enrolled);
      const wanted = new Set(enrolled.map((name) => mesh.lab.pod(name).node));
      await Promise.all([...wanted].map((node) => mesh.startAgent(node)));
      return mesh;
    } catch (error) {
      await mesh[Symbol.asyncDispose]();
      throw error;
    }
  }

  pod(name: string): LabPod {
    return this.lab.pod(name);
  }

  agent(node: string): AgentProcess {
    const agent = this.agents.get(node);
    if (agent === undefined) throw new Error(`no agent on ${node}`);
    return agent;
  }

  /** Starts the agent of `node` and waits until all its pods are captured. */
  async startAgent(node: string, { isReady = true } = {}): Promise<AgentProcess> {
    const { folder } = this.lab;
    const agent = new AgentProcess(
      this.lab.node(node),
      [
        '--node',
        node,
        '--mesh-file',
        this.meshFile,
        '--pods',
        this.podsFile(node),
        '--ca-dir',
        join(folder, 'ca'),
      ].concat(['--run-dir', join(folder, `run-${node}`), '--log-format', 'json', '--drain', '2s']),
      this.#options.env,
    );
    this.agents.set(node, agent);
    if (isReady) await this.ready(node);
    return agent;
  }

  /** Resolves when readiness says 200. */
  async ready(node: string): Promise<void> {
    const agent = this.agent(node);
    const deadline = Date.now() + 20_000;
    for (;;) {
      const body = await agent.get('/healthz/ready', 15_021).catch((error: unknown) => String(error));
      if (body === 'ready\n') return;
      if (Date.now() > deadline) throw new Error(`agent of ${node} is not ready: ${body} ${agent.stderr.join('\n')}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  get meshFile(): string {
    return join(this.lab.folder, 'mesh.json');
  }

  podsFile(node: string): string {
    return join(this.lab.folder, `pods-${node}.json`);
  }

  /** Writes the mesh: every pod of the lab as a workload unless `workloads` is given, plus services and policies. */
  write(document: MeshDocument): void {
    const workloads = document.workloads ?? [...this.lab.pods.keys()].map((name) => this.workload(name));
    replaceFile(this.meshFile, JSON.stringify({ services: [], policies: [], ...document, workloads }, undefined, 1));
  }

  /** The record of a pod: HBONE unless its name starts with `outside`. */
  workload(name: string, fields: MeshWorkload = {}): MeshWorkload {
    const pod = this.lab.pod(name);
    return {
      uid: `Kubernetes//Pod/${NAMESPACE}/${name}`,
      name,
      namespace: NAMESPACE,
      serviceAccount: name,
      workloadIps: pod.ips,
      protocol: name.startsWith('outside') ? 'TCP' : 'HBONE',
      node: pod.node,
      workloadName: name,
      canonicalName: name,
      canonicalRevision: 'v1',
      services: {},
      ...fields,
    };
  }

  /** Writes the pods files: exactly these pods are enrolled, each by the agent of its node. */
  enrol(names: readonly string[]): void {
    for (const node of this.lab.nodes.keys()) {
      const pods = names
        .filter((name) => this.lab.pod(name).node === node)
        .map((name) => ({
          uid: `uid-${name}`,
          name,
          namespace: NAMESPACE,
          serviceAccount: name,
          netns: this.lab.pod(name).inside.path,
        }));
      replaceFile(this.podsFile(node), JSON.stringify({ pods }));
    }
  }

  /** An application inside a pod, on all its addresses. */
  serve(podName: string, port: number, onConnection: (socket: net.Socket) => void): void {
    const pod = this.lab.pod(podName);
    const { fd } = pod.inside.run(() =>
      linuxSys.listenTcp(undefined, { address: pod.ips.some((ip) => ipFamily(ip) === 6) ? '::' : '0.0.0.0', port }),
    );
    const server = listenOn(fd, {
      onConnection: (socket) => {
        socket.resume();
        onConnection(socket);
      },
    });
    this.#servers.push(server);
  }

  /** A connection from inside a pod, half-open capable, reading. */
  async dial(podName: string, to: HostPort): Promise<net.Socket> {
    const socket = await this.lab.pod(podName).inside.dial(to);
    return socket.on('error', () => {});
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const server of this.#servers) server.close();
    await Promise.all([...this.agents.values()].map((agent) => agent[Symbol.asyncDispose]()));
    this.lab[Symbol.dispose]();
  }
}

/** Sends `request` from a pod and resolves with all the answer; rejects when the connection is reset. */
export async function ask(mesh: TestMesh, from: string, to: HostPort, request: string): Promise<string> {
  const socket = await mesh.dial(from, to);
  const chunks: Buffer[] = [];
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  socket.on('data', (chunk: Buffer) => chunks.push(chunk));
  socket.on('end', () => resolve(Buffer.concat(chunks).toString()));
  socket.on('error', reject);
  socket.on('close', () => resolve(Buffer.concat(chunks).toString()));
  socket.resume();
  socket.end(request);
  return await promise.finally(() => socket.destroy());
}

/** Never half-written: readers of the file see the old or the new one. */
function replaceFile(path: string, text: string): void {
  mkdirSync(join(path, '..'), { recursive: true });
  writeFileSync(`${path}.new`, text);
  renameSync(`${path}.new`, path);
}
