/** Everything the story of the demo acts with: the lab, an application per pod, an agent per node, a sniffer between the nodes. */
import { mkdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { formatHostPort } from '../../base/ip.ts';
import { PORTS } from '../../model/ports.ts';
import { createLab, type Lab, type LabPod } from '../lab/lab.ts';
import type { Family } from '../lab/plan.ts';
import { Sniffer } from '../lab/sniffer.ts';
import { Wiretap } from '../lab/wiretap.ts';
import { Agent } from './agent.ts';
import { App } from './app.ts';
import { APP_PORT, meshFile, type PolicySpec, podsFile, replaceFile } from './mesh-file.ts';
import { until } from './waiting.ts';

/** The client that may, the client that may not, the server, and a server no policy speaks of. */
export const MESHED = ['shop', 'blog', 'cart', 'stock'] as const;
/** A pod that nobody enrols: it speaks plaintext. */
export const OUTSIDER = 'laptop';
export type PodName = (typeof MESHED)[number] | typeof OUTSIDER;

const NODES = [
  { name: 'node-a', pods: ['shop', 'blog', OUTSIDER] },
  { name: 'node-b', pods: ['cart', 'stock'] },
];
const VIPS = { ipv4: ['10.96.0.10'], ipv6: ['fd96::10'], dual: ['10.96.0.10', 'fd96::10'] };
const CAPTURE_TIMEOUT_MS = 20_000;

export interface StageOptions {
  readonly family: Family;
  /** Applications and agents go on when the demo has ended. */
  readonly isStaying: boolean;
}

export class Stage implements AsyncDisposable {
  readonly lab: Lab;
  readonly tap = new Wiretap();
  readonly vip: string;
  readonly meshFile: string;
  readonly agents: readonly [Agent, Agent];
  readonly #options: StageOptions;
  readonly #apps = new Map<string, App>();
  readonly #undo = new AsyncDisposableStack();
  #sniffer: Sniffer | undefined;

  static async create(options: StageOptions): Promise<Stage> {
    const lab = await createLab({ nodes: NODES, family: options.family });
    const stage = new Stage(lab, options);
    try {
      await stage.#setUp();
      return stage;
    } catch (error) {
      await stage[Symbol.asyncDispose]();
      throw error;
    }
  }

  private constructor(lab: Lab, options: StageOptions) {
    this.lab = this.#undo.use(lab);
    this.#options = options;
    this.vip = VIPS[options.family][0] ?? '';
    this.meshFile = path.join(lab.folder, 'mesh.yaml');
    this.agents = [this.#agent('node-a'), this.#agent('node-b')];
  }

  #agent(node: string): Agent {
    const folder = path.join(this.lab.folder, node);
    mkdirSync(folder);
    return new Agent(this.lab.node(node), { mesh: this.meshFile, ca: path.join(this.lab.folder, 'ca'), folder });
  }

  async #setUp(): Promise<void> {
    this.applyPolicy(undefined);
    this.enrol([]);
    const [nodeA] = this.agents;
    this.#sniffer = await Sniffer.start(this.lab.wire, nodeA.node.wirePort, (segment) => this.tap.add(segment));
    this.#undo.use(this.#sniffer);
    const apps = await Promise.all(
      [...this.lab.pods.values()].map((pod) => App.start(pod, APP_PORT, this.#options.isStaying)),
    );
    for (const app of apps) this.#apps.set(app.pod.name, app);
  }

  get apps(): readonly App[] {
    return [...this.#apps.values()];
  }

  app(name: PodName): App {
    const app = this.#apps.get(name);
    if (app === undefined) throw new RangeError(`no application in ${name}`);
    return app;
  }

  /** `what` marks the request, so that it can be looked for on the wire. */
  url(server: PodName, what: string): string {
    return `http://${formatHostPort({ ip: this.lab.pod(server).ip, port: APP_PORT })}/${what}`;
  }

  serviceUrl(what: string): string {
    return `http://${this.vip.includes(':') ? `[${this.vip}]` : this.vip}/${what}`;
  }

  applyPolicy(policy: PolicySpec | undefined): void {
    const pods = MESHED.map((name) => this.lab.pod(name));
    const service = { server: 'cart', vips: VIPS[this.#options.family] };
    replaceFile(this.meshFile, meshFile({ pods, service, ...(policy !== undefined && { policy }) }));
  }

  /** Tells each agent which of its pods are in the mesh. */
  enrol(names: readonly PodName[]): void {
    for (const agent of this.agents) {
      const pods = agent.node.pods.filter((pod) => names.some((name) => name === pod.name));
      replaceFile(agent.podsFile, podsFile(pods.map((pod) => this.lab.pod(pod.name))));
    }
  }

  /** Everything that passed the wire before this call is in `tap`. */
  async settleWire(): Promise<void> {
    await this.#sniffer?.settle();
  }

  /** Resolves when redirection and the agent's listeners are there in all of `names`. */
  async untilCaptured(names: readonly PodName[]): Promise<void> {
    await until(
      async () => {
        const states = await Promise.all(names.map((name) => this.#isCaptured(this.lab.pod(name))));
        return states.every((state) => state) || undefined;
      },
      CAPTURE_TIMEOUT_MS,
      () => 'not all pods are captured',
    );
  }

  async #isCaptured(pod: LabPod): Promise<boolean> {
    const isListening = LISTENERS.every((port) => pod.inside.run(() => isListeningOn(port)));
    const { stdout } = await pod.inside.exec(['nft', 'list', 'ruleset']);
    return isListening && stdout.includes(`redirect to :${PORTS.outbound}`);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#undo.disposeAsync();
  }

  /** Leaves everything running. */
  async keep(): Promise<void> {
    this.lab.keep();
    for (const app of this.apps) app.letGo();
    await this.#sniffer?.[Symbol.asyncDispose]();
  }
}

const LISTENERS = [PORTS.outbound, PORTS.inboundPlaintext, PORTS.hbone];
const LISTEN_STATE = '0A';

/** In the namespace of the calling thread (proc_net_tcp: local address in column 2, state in column 4). */
function isListeningOn(port: number): boolean {
  const wanted = `:${port.toString(16).toUpperCase().padStart(4, '0')}`;
  const lines = ['tcp', 'tcp6'].flatMap((table) => readFileSync(`/proc/thread-self/net/${table}`, 'utf8').split('\n'));
  return lines.some((line) => {
    const columns = line.trim().split(/\s+/);
    return columns[1]?.endsWith(wanted) === true && columns[3] === LISTEN_STATE;
  });
}
