/**
 * A real mesh for tests: a lab of nodes and pods, one agent process per node, applications inside the pods' namespaces
 * served by the test itself. Nothing is faked; everything goes away on dispose.
 */
import { mkdirSync, renameSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { dirname, join } from 'node:path';
import { after, before } from 'node:test';
import { MeshError } from '../../src/base/errors.ts';
import { formatHostPort, type HostPort, ipFamily } from '../../src/base/ip.ts';
import { createLab, type Lab, type LabPod } from '../../src/cli/lab/lab.ts';
import type { Family } from '../../src/cli/lab/plan.ts';
import { linuxSys } from '../../src/sys/linux.ts';
import { localAddress } from '../../src/sys/sockets.ts';
import { systemClock } from '../../src/sys/system-clock.ts';
import { dialTcp, listenOn } from '../../src/sys/tcp.ts';
import { AgentProcess } from './agent-process.ts';
import { skipWithoutRoot } from './netns.ts';

export const NAMESPACE = 'demo';
/** Environment of agents that are pods themselves. */
export const AGENT_POD = { POD_NAME: 'agent', POD_NAMESPACE: NAMESPACE, SERVICE_ACCOUNT: 'agent' } as const;
const START_TIMEOUT_MS = 90_000;
const DIAL_MS = 2_000;

export type MeshRecord = Readonly<Record<string, unknown>>;

export interface MeshDocument {
  /** Default: every pod of the lab. */
  readonly workloads?: readonly MeshRecord[];
  readonly services?: readonly MeshRecord[];
  readonly policies?: readonly MeshRecord[];
}

export interface MeshOptions {
  readonly family?: Family;
  /** Node → pods. Pods whose name starts with `outside` are neither enrolled nor HBONE unless a test says so. */
  readonly nodes?: Readonly<Record<string, readonly string[]>>;
  /** Pods to enrol; default: all but the outside ones. */
  readonly enrolled?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** Further flags of every agent. */
  readonly flags?: readonly string[];
  /** Further flags of the agent of one node. */
  readonly nodeFlags?: Readonly<Record<string, readonly string[]>>;
  /** Variables by which the agent of a node learns where its certificates come from; default: the CA directory all share. */
  readonly certificateEnv?: (mesh: TestMesh, node: string) => Readonly<Record<string, string>>;
  readonly mesh?: (mesh: TestMesh) => MeshDocument;
  /** Flags by which the agent of a node learns of the mesh; default: the mesh file. */
  readonly meshFlags?: (mesh: TestMesh, node: string) => readonly string[];
  /** Flags by which the agent of a node learns of its pods; default: the list of pods in a file. */
  readonly podFlags?: (mesh: TestMesh, node: string) => readonly string[];
  /** Starts agents as the image of ztunnel is started: `proxy ztunnel`, no flags, these variables alone. */
  readonly ztunnelEnv?: (mesh: TestMesh, node: string) => Readonly<Record<string, string>>;
  /** Runs when the pods are there and no agent is. */
  readonly beforeAgents?: (mesh: TestMesh, enrolled: readonly string[]) => Promise<void>;
}

const DEFAULT_NODES = { n1: ['client', 'near'], n2: ['server', 'server2'], n3: ['outside'] };

export class TestMesh implements AsyncDisposable {
  readonly lab: Lab;
  /** By node; sidecars by pod. */
  readonly #agents = new Map<string, AgentProcess>();
  readonly #options: MeshOptions;
  readonly #dialled = new Set<net.Socket>();
  readonly #addresses = new WeakMap<net.Socket, string>();
  readonly #undo = new AsyncDisposableStack();

  private constructor(lab: Lab, options: MeshOptions) {
    this.lab = lab;
    this.#options = options;
    this.#undo.defer(() => lab[Symbol.dispose]());
  }

  /** Resolves when every agent has captured its pods. */
  static async start(options: MeshOptions = {}): Promise<TestMesh> {
    const nodes = Object.entries(options.nodes ?? DEFAULT_NODES).map(([name, pods]) => ({ name, pods }));
    const mesh = new TestMesh(await createLab({ nodes, family: options.family ?? 'ipv4' }), options);
    try {
      mesh.write(options.mesh?.(mesh) ?? {});
      const names = options.enrolled ?? [...mesh.lab.pods.keys()].filter((name) => !name.startsWith('outside'));
      mesh.enrol(names);
      await options.beforeAgents?.(mesh, names);
      const busy = new Set(names.map((name) => mesh.pod(name).node));
      await Promise.all([...busy].map((node) => mesh.startAgent(node)));
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
    const agent = this.#agents.get(node);
    if (agent === undefined) throw new Error(`no agent on ${node}`);
    return agent;
  }

  get agents(): readonly AgentProcess[] {
    return [...this.#agents.values()];
  }

  /** Starts the agent of `node` and waits until the pods listed for it are captured. */
  async startAgent(node: string, extra: readonly string[] = []): Promise<AgentProcess> {
    const agent = this.spawnAgent(node, extra);
    for (const pod of this.#enrolledOn(node)) await this.captured(pod, agent);
    return agent;
  }

  /** Starts the agent of `node` without waiting for anything. */
  spawnAgent(node: string, extra: readonly string[] = [], env: Readonly<Record<string, string>> = {}): AgentProcess {
    const agent = this.spawnSecondAgent(node, extra, env);
    this.#agents.set(node, agent);
    return agent;
  }

  /** Another agent beside the one of `node`. */
  spawnSecondAgent(
    node: string,
    extra: readonly string[] = [],
    env: Readonly<Record<string, string>> = {},
  ): AgentProcess {
    const { flags = [], nodeFlags = {}, env: common = {}, ztunnelEnv } = this.#options;
    if (ztunnelEnv !== undefined) {
      const variables = { ...ztunnelEnv(this, node), ...env };
      return this.#undo.use(new AgentProcess(this.lab.node(node), ['proxy', 'ztunnel', ...extra], variables));
    }
    const argv = [...this.agentFlags(node), ...flags, ...(nodeFlags[node] ?? []), ...extra];
    const certificates = this.#options.certificateEnv?.(this, node) ?? {};
    return this.#undo.use(
      new AgentProcess(this.lab.node(node), ['agent', ...argv], { ...common, ...certificates, ...env }),
    );
  }

  /** A sidecar in the namespace of `pod`, which no agent may have enrolled; known as the agent of `pod` from then on. */
  spawnSidecar(
    pod: string,
    extra: readonly string[] = [],
    { env = {}, prefix = [] }: { env?: Readonly<Record<string, string>>; prefix?: readonly string[] } = {},
  ): AgentProcess {
    const flags = {
      workload: `${NAMESPACE}/${pod}/${pod}`,
      'mesh-file': this.meshFile,
      'ca-dir': this.caFolder,
      'run-dir': this.runFolder(pod),
      'log-format': 'json',
      drain: '2s',
    };
    const argv = ['sidecar', ...Object.entries(flags).flatMap(([flag, value]) => [`--${flag}`, value]), ...extra];
    const sidecar = this.#undo.use(new AgentProcess(this.pod(pod), argv, env, prefix));
    this.#agents.set(pod, sidecar);
    return sidecar;
  }

  agentFlags(node: string): readonly string[] {
    const flags = {
      node,
      ...(this.#options.certificateEnv === undefined ? { 'ca-dir': this.caFolder } : {}),
      'run-dir': this.runFolder(node),
      'log-format': 'json',
      drain: '2s',
    };
    const podFlags = this.#options.podFlags?.(this, node) ?? ['--pods', this.podsFile(node)];
    const meshFlags = this.#options.meshFlags?.(this, node) ?? ['--mesh-file', this.meshFile];
    return [...Object.entries(flags).flatMap(([flag, value]) => [`--${flag}`, value]), ...podFlags, ...meshFlags];
  }

  /** Resolves when `pod` was captured, by a line from index `after` on. */
  async captured(pod: string, agent = this.agent(this.pod(pod).node), from = 0): Promise<void> {
    await agent.line(
      (line) => line.message === 'pod captured' && line['uid'] === uidOf(pod),
      `line that ${pod} is captured`,
      from,
    );
  }

  /** Resolves when the readiness of `node` says so. */
  async ready(node: string): Promise<void> {
    const agent = this.agent(node);
    for (;;) {
      const mark = agent.lines.length;
      const { status, body } = await agent.get('/healthz/ready', 15_021);
      if (status === 200) return;
      await agent.line(({ scope }) => scope.endsWith('readiness'), `readiness: ${body.trim()}`, mark);
    }
  }

  get meshFile(): string {
    return join(this.lab.folder, 'mesh.json');
  }

  get caFolder(): string {
    return join(this.lab.folder, 'ca');
  }

  runFolder(node: string): string {
    return join(this.lab.folder, `run-${node}`);
  }

  podsFile(node: string): string {
    return join(this.lab.folder, `pods-${node}.json`);
  }

  /** Writes the mesh and resolves when every agent has taken it. */
  async update(document: MeshDocument): Promise<void> {
    const running = this.agents.filter((agent) => agent.isRunning);
    const marks = running.map(({ lines }) => lines.length);
    this.write(document);
    const isLoaded = (line: { readonly message: string }): boolean => line.message === 'mesh file loaded';
    await Promise.all(running.map((agent, i) => agent.line(isLoaded, 'line that the mesh was loaded', marks[i])));
  }

  write(document: MeshDocument): void {
    const workloads = document.workloads ?? [...this.lab.pods.keys()].map((name) => this.workload(name));
    replaceFile(this.meshFile, JSON.stringify({ services: [], policies: [], ...document, workloads }, undefined, 1));
  }

  /** Every pod of the lab as a workload, with `changes` to some of them. */
  workloads(changes: Readonly<Record<string, MeshRecord>> = {}): MeshRecord[] {
    return [...this.lab.pods.keys()].map((name) => this.workload(name, changes[name]));
  }

  /** The record of a pod: HBONE unless its name starts with `outside`. */
  workload(name: string, fields: MeshRecord = {}): MeshRecord {
    const pod = this.lab.pod(name);
    return {
      uid: `Kubernetes//Pod/${NAMESPACE}/${name}`,
      name,
      namespace: NAMESPACE,
      serviceAccount: name,
      workloadIps: pod.ips,
      protocol: name.startsWith('outside') ? 'TCP' : 'HBONE',
      node: pod.node,
      workloadName: `${name}-deployment`,
      canonicalName: name,
      canonicalRevision: 'v1',
      services: {},
      ...fields,
    };
  }

  /** The record of an agent that knows which pod it is: started with `AGENT_POD` in its environment. */
  agentRecord(node: string): MeshRecord {
    return {
      uid: `Kubernetes//Pod/${NAMESPACE}/agent-${node}`,
      name: 'agent',
      namespace: NAMESPACE,
      serviceAccount: 'agent',
      workloadIps: this.lab.node(node).ips,
      protocol: 'HBONE',
      node,
      workloadName: 'agent',
      services: {},
    };
  }

  /** Exactly these pods are enrolled from now on, each by the agent of its node. */
  enrol(names: readonly string[]): void {
    for (const node of this.lab.nodes.keys()) {
      const pods = names.filter((name) => this.pod(name).node === node).map((name) => this.podRecord(name));
      replaceFile(this.podsFile(node), JSON.stringify({ pods }));
    }
    this.#enrolled = names;
  }

  podRecord(name: string): MeshRecord {
    const netns = this.pod(name).inside.path;
    return { uid: uidOf(name), name, namespace: NAMESPACE, serviceAccount: name, netns };
  }

  /**
   * A TCP connection from inside a pod, paused, half-open capable; gone with the mesh at the latest. One that is refused may be
   * reset before anybody has seen that it was there: such a socket is destroyed, with the error.
   */
  async dial(podName: string, to: HostPort, timeoutMs = DIAL_MS): Promise<net.Socket> {
    let fd = -1;
    const socketTcp: typeof linuxSys.socketTcp = (...made) => {
      const socket = linuxSys.socketTcp(...made);
      fd = socket.fd;
      return socket;
    };
    const options = { family: ipFamily(to.ip) };
    const limits = { timeoutMs, clock: systemClock };
    const sys = { ...linuxSys, socketTcp };
    const dialling = this.pod(podName).inside.run(() =>
      dialTcp(sys, undefined, to, options, limits).catch(resetAtOnce),
    );
    // Node dials in the next tick; from then on it has an address, which a socket that is reset forgets.
    await new Promise<void>((resolve) => process.nextTick(resolve));
    const address = localAddress(fd);
    const socket = await dialling;
    if (address !== undefined) this.#addresses.set(socket, formatHostPort(address));
    this.#dialled.add(socket);
    return socket.once('close', () => this.#dialled.delete(socket));
  }

  /** `ip:port` of what was dialled, as access logs print it. */
  addressOf(dialled: net.Socket): string {
    return this.#addresses.get(dialled) ?? '';
  }

  /** An application inside a pod, on all its addresses, until disposed. Half-open capable, reading. */
  serve(podName: string, port: number, onConnection: (socket: net.Socket) => void): Disposable {
    const address = this.lab.pod(podName).ips.some((ip) => ip.includes(':')) ? '::' : '0.0.0.0';
    const { fd } = this.pod(podName).inside.run(() => linuxSys.listenTcp(undefined, { address, port, backlog: 1024 }));
    const open = new Set<net.Socket>();
    const server = listenOn(fd, {
      onConnection: (socket) => {
        open.add(socket);
        socket.once('close', () => open.delete(socket));
        onConnection(socket.resume());
      },
    });
    const application = {
      [Symbol.dispose](): void {
        server.close();
        for (const socket of open) socket.destroy();
      },
    };
    return this.#undo.use(application);
  }

  /** Disposed with the mesh, after its agents. */
  keep<T extends Disposable>(resource: T): T {
    return this.#undo.use(resource);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#dialled) socket.destroy();
    await this.#undo.disposeAsync();
  }

  #enrolled: readonly string[] = [];

  #enrolledOn(node: string): readonly string[] {
    return this.#enrolled.filter((name) => this.pod(name).node === node);
  }
}

function resetAtOnce(error: unknown): net.Socket {
  if (!(error instanceof MeshError) || error.fields['errno'] !== 'ECONNRESET') throw error;
  return new net.Socket().on('error', () => {}).destroy(error);
}

/** One mesh for all tests of a file; none without root, when they are skipped. `prepare` runs before the first test. */
export function meshForFile(
  options: MeshOptions = {},
  prepare: (mesh: TestMesh) => Promise<void> | void = () => {},
): () => TestMesh {
  let mesh: TestMesh | undefined;
  before(
    async () => {
      if (skipWithoutRoot !== false) return;
      mesh = await TestMesh.start(options);
      await prepare(mesh);
    },
    { timeout: START_TIMEOUT_MS },
  );
  after(async () => mesh?.[Symbol.asyncDispose]());
  return () => {
    if (mesh === undefined) throw new Error('the mesh of this file did not start');
    return mesh;
  };
}

export function identityOf(pod: string): string {
  return `spiffe://cluster.local/ns/${NAMESPACE}/sa/${pod}`;
}

export function uidOf(pod: string): string {
  return `uid-${pod}`;
}

/** Never half-written: readers of the file see the old or the new one. */
export function replaceFile(path: string, text: string): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(`${path}.new`, text);
  renameSync(`${path}.new`, path);
}
