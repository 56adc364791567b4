/**
 * A small cluster network on this machine, from network namespaces: nodes on a wire, pods behind their nodes.
 * Nothing in the host's own namespace is touched. Whatever ends this process but SIGKILL removes it; a later lab removes
 * what a SIGKILL left.
 */
import { randomBytes } from 'node:crypto';
import { runTool } from '../../sys/tool.ts';
import { LabNetns } from './namespace.ts';
import {
  allNetns,
  type Family,
  type NodeSpec,
  nodeCommands,
  type Plan,
  type PlannedNode,
  type PlannedPod,
  planLab,
  podCommands,
  wireCommands,
} from './plan.ts';
import { keepLab, netnsPrefix, registerLab, removeLab, removeStaleLabs } from './registry.ts';

export interface LabOptions {
  readonly nodes: readonly NodeSpec[];
  readonly family: Family;
}

export interface LabNode extends PlannedNode {
  readonly inside: LabNetns;
}

export interface LabPod extends PlannedPod {
  readonly inside: LabNetns;
  /** The first of `ips`. */
  readonly ip: string;
}

const ENDING_SIGNALS = { SIGHUP: 1, SIGINT: 2, SIGTERM: 15 } as const;

/** Builds a lab; on failure nothing of it is left. */
export async function createLab(options: LabOptions): Promise<Lab> {
  removeStaleLabs();
  const id = randomBytes(3).toString('hex');
  const plan = planLab(netnsPrefix(id), options.nodes, options.family);
  const guard = new Guard(id);
  try {
    const folder = registerLab(id);
    const namespaces = await makeNamespaces(plan, options.family);
    await connect(plan, namespaces);
    return new Lab({ id, folder, plan, namespaces, guard });
  } catch (error) {
    guard.remove();
    throw error;
  }
}

interface LabParts {
  readonly id: string;
  readonly folder: string;
  readonly plan: Plan;
  readonly namespaces: ReadonlyMap<string, LabNetns>;
  readonly guard: Guard;
}

export class Lab implements Disposable {
  readonly id: string;
  /** For files that live as long as the lab. */
  readonly folder: string;
  readonly wire: LabNetns;
  readonly nodes: ReadonlyMap<string, LabNode>;
  readonly pods: ReadonlyMap<string, LabPod>;
  readonly #namespaces: ReadonlyMap<string, LabNetns>;
  readonly #guard: Guard;

  constructor({ id, folder, plan, namespaces, guard }: LabParts) {
    this.id = id;
    this.folder = folder;
    this.#namespaces = namespaces;
    this.#guard = guard;
    this.wire = this.#netns(plan.wireNetns);
    this.nodes = new Map(plan.nodes.map((node) => [node.name, { ...node, inside: this.#netns(node.netns) }]));
    const pods = plan.nodes.flatMap((node) => node.pods);
    this.pods = new Map(
      pods.map((pod) => [pod.name, { ...pod, ip: pod.ips[0] ?? '', inside: this.#netns(pod.netns) }]),
    );
  }

  node(name: string): LabNode {
    return found(this.nodes, name);
  }

  pod(name: string): LabPod {
    return found(this.pods, name);
  }

  #netns(name: string): LabNetns {
    return found(this.#namespaces, name);
  }

  /** From here on the lab survives the end of this process; `removeLab(id)` ends it. */
  keep(): void {
    keepLab(this.id);
    this.#guard.release();
  }

  [Symbol.dispose](): void {
    for (const netns of this.#namespaces.values()) netns[Symbol.dispose]();
    this.#guard.remove();
  }
}

function found<T>(map: ReadonlyMap<string, T>, name: string): T {
  const value = map.get(name);
  if (value === undefined) throw new RangeError(`this lab has no ${name}`);
  return value;
}

async function makeNamespaces(plan: Plan, family: Family): Promise<ReadonlyMap<string, LabNetns>> {
  const names = allNetns(plan);
  const commands = names.map((name) => `netns add ${name}\n`).join('');
  const { code, stderr } = await runTool(undefined, ['ip', '-batch', '-'], commands);
  if (code !== 0) throw new Error(`ip netns add: ${stderr.trim()}`);
  const namespaces = new Map(names.map((name) => [name, new LabNetns(name)]));
  // Before any interface exists: it takes its settings from `default` at birth.
  for (const netns of namespaces.values()) netns.sysctl(family === 'ipv4' ? NO_IPV6 : QUICK_IPV6);
  for (const node of plan.nodes) {
    namespaces.get(node.netns)?.sysctl(family === 'ipv4' ? FORWARD_IPV4 : { ...FORWARD_IPV4, ...FORWARD_IPV6 });
  }
  return namespaces;
}

const NO_IPV6 = { 'ipv6/conf/all/disable_ipv6': '1', 'ipv6/conf/default/disable_ipv6': '1' };
const QUICK_IPV6 = { 'ipv6/conf/default/accept_dad': '0', 'ipv6/conf/all/accept_dad': '0' };
const FORWARD_IPV4 = { 'ipv4/ip_forward': '1' };
const FORWARD_IPV6 = { 'ipv6/conf/all/forwarding': '1' };

async function connect(plan: Plan, namespaces: ReadonlyMap<string, LabNetns>): Promise<void> {
  await found(namespaces, plan.wireNetns).ip(wireCommands(plan));
  await Promise.all(plan.nodes.map((node) => found(namespaces, node.netns).ip(nodeCommands(plan, node))));
  const pods = plan.nodes.flatMap((node) => node.pods);
  await Promise.all(pods.map((pod) => found(namespaces, pod.netns).ip(podCommands(pod))));
}

/** Removes the lab when the process ends, however it ends. Removal happens once. */
class Guard {
  readonly #id: string;
  #isArmed = true;
  readonly #onExit = (): void => this.remove();
  readonly #onSignal = (signal: NodeJS.Signals): void => {
    this.remove();
    process.exit(128 + (signal in ENDING_SIGNALS ? ENDING_SIGNALS[signal as keyof typeof ENDING_SIGNALS] : 0));
  };

  constructor(id: string) {
    this.#id = id;
    process.on('exit', this.#onExit);
    for (const signal of Object.keys(ENDING_SIGNALS)) process.on(signal, this.#onSignal);
  }

  remove(): void {
    if (!this.#isArmed) return;
    this.#isArmed = false;
    // The handlers stay until the end: a second signal in the middle would kill us with the work half done.
    removeLab(this.#id);
    this.release();
  }

  release(): void {
    this.#isArmed = false;
    process.off('exit', this.#onExit);
    for (const signal of Object.keys(ENDING_SIGNALS)) process.off(signal, this.#onSignal);
  }
}
