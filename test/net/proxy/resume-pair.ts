/** Two agents with a tunnel between them, each of which can be replaced by a next one in the same process. */
import type net from 'node:net';
import type { HostPort } from '../../../src/base/ip.ts';
import type { MeshState } from '../../../src/model/mesh-index.ts';
import { atAddress, workload } from '../../unit/model/sample-mesh.ts';
import { OPEN_MESH, ProxyWorld } from './proxy-world.ts';

export const FAR = '10.0.0.9';
/** The pod serves `10.0.0.9` as its waypoint: both ends are on loopback. */
export const SERVING: MeshState = {
  ...OPEN_MESH,
  workloads: [...OPEN_MESH.workloads, workload('far', { ips: [FAR], waypoint: atAddress('127.0.0.1') })],
};

/** A mesh in which `10.0.0.9` is reached through the agent that listens on `port`. */
function reachedAt(port: number): MeshState {
  const gateway = workload('gateway', { ips: ['127.0.0.1'], serviceAccount: 'server' });
  const far = workload('far', { ips: [FAR], waypoint: atAddress('127.0.0.1', { hbonePort: port }) });
  return {
    ...OPEN_MESH,
    workloads: [workload('server', { ips: ['127.0.0.2'], serviceAccount: 'client' }), gateway, far],
  };
}

/** An agent at each end of a tunnel, and an application that sends back what it gets. */
export class Pair implements AsyncDisposable {
  readonly #undo = new AsyncDisposableStack();
  server: ProxyWorld;
  client: ProxyWorld;
  readonly #mesh: MeshState;
  #target: HostPort | undefined;
  readonly #former: ProxyWorld[] = [];
  /** Sockets that the client had made to dial when the first stream left its tunnel, in the latest replacement. */
  readonly dialsBefore = { client: 0, server: 0 };

  constructor() {
    this.server = this.#undo.use(new ProxyWorld({ mesh: SERVING }));
    this.#mesh = reachedAt(this.server.port('hbone'));
    this.client = this.#undo.use(new ProxyWorld({ mesh: this.#mesh, serviceAccount: 'client' }));
  }

  /** A connection through the tunnel, to `app` or to an echo. */
  async connect(app?: (socket: net.Socket) => void): Promise<net.Socket> {
    await this.serve(app);
    return await this.client.connect('outbound');
  }

  /** What the client dials from now on leads to `app`, or to an echo. */
  async serve(app?: (socket: net.Socket) => void): Promise<void> {
    const { port } = await this.server.app(app);
    this.#target = { ip: FAR, port };
    this.client.target = this.#target;
  }

  async replaceServer(mesh = SERVING): Promise<void> {
    const former = this.server;
    const needs = await former.proxy.needs();
    const inherited = { listeners: await former.proxy.leaveListeners(), connections: [] };
    this.server = this.#undo.use(new ProxyWorld({ mesh, inherited, former }));
    await this.server.proxy.warm(needs);
    this.dialsBefore.server = this.client.dials;
    await this.#move(former, this.server);
  }

  async replaceClient(): Promise<void> {
    const former = this.client;
    const needs = await former.proxy.needs();
    const inherited = { listeners: await former.proxy.leaveListeners(), connections: [] };
    this.client = this.#undo.use(new ProxyWorld({ mesh: this.#mesh, serviceAccount: 'client', inherited, former }));
    this.client.target = this.#target;
    await this.client.proxy.warm(needs);
    this.dialsBefore.client = this.client.dials;
    await this.#move(former, this.client);
  }

  /** How many connections the agents that were replaced have, and lines that say that one is over. */
  get left(): { readonly connections: number; readonly ends: number } {
    const count = (of: (world: ProxyWorld) => number): number => this.#former.reduce((sum, one) => sum + of(one), 0);
    return {
      connections: count(({ proxies }) => proxies.counts('p1')?.connections ?? 0),
      ends: count(({ ends }) => ends.length),
    };
  }

  async #move(from: ProxyWorld, to: ProxyWorld): Promise<void> {
    this.#former.push(from);
    for (let isLast = false; !isLast; ) {
      const part = await from.proxy.moveSome();
      await to.proxy.adopt(part.connections);
      ({ isLast } = part);
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#undo.disposeAsync();
  }
}
