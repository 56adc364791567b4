/** Joins capture and proxy: one `PodProxy` per captured pod, fed with verdict pushes. In each thread that carries traffic. */
import { MeshError, messageOf } from '../base/errors.ts';
import type { StopMode } from '../capture/capture-contract.ts';
import { Revocation } from '../identity/revocation.ts';
import type { Budget } from '../model/budget.ts';
import type { VerdictPush } from '../model/verdict.ts';
import type { Connection } from '../proxy/connection.ts';
import type { Inheritance, InheritedListener } from '../proxy/inheritance.ts';
import type { PodContext } from '../proxy/pod-context.ts';
import { PodProxy } from '../proxy/pod-proxy.ts';
import {
  type ClaimedStream,
  claimedOf,
  type ProxyDeps,
  type ProxySettings,
  type StreamClaim,
} from '../proxy/settings.ts';
import type { LoopTime } from '../sys/loop-time.ts';
import type { Netns } from '../sys/sys.ts';
import type { ConnectionView } from '../telemetry/connection-view.ts';
import type { WorkloadUse } from '../telemetry/workload-use.ts';
import { LoopShares, TURN_LIMITS } from '../tunnel/loop-shares.ts';
import type { BudgetTable } from './budgets.ts';
import type { MovableSet, ServedPod } from './data-plane.ts';

export interface PodProxiesOptions {
  readonly settings: ProxySettings;
  readonly deps: Omit<ProxyDeps, 'revocation' | 'neighbour' | 'loop'>;
  /** Of this thread. */
  readonly loopTime: LoopTime;
  /** How long connections may finish when the whole agent stops. */
  readonly drainGraceMs: number;
  /** How long they may when another agent serves their pods already. Default: the same. */
  readonly holdMs?: number;
}

/** In this thread. */
export interface LocalSet extends MovableSet {
  /** Leaves its listeners to another thread, until `serveAgain`. */
  rest(): readonly InheritedListener[];
  serveAgain(listeners: readonly InheritedListener[]): void;
}

export interface PodCounts {
  readonly connections: number;
  readonly tunnelsIn: number;
  readonly tunnelsOut: number;
}

export class PodProxies implements Disposable {
  /** Who uses the event loop of this thread. */
  readonly loop: LoopShares;
  readonly #options: PodProxiesOptions;
  readonly #deps: ProxyDeps;
  /** Of a pod that was handed over and came back there are two. */
  readonly #proxies = new Map<PodProxy, string>();
  readonly #pushes: Disposable;
  #budgets: { readonly standard: Budget; readonly byPod: ReadonlyMap<string, Budget> };

  constructor(options: PodProxiesOptions) {
    this.#options = options;
    this.#budgets = { standard: options.settings.budget, byPod: new Map() };
    const { log, telemetry } = options.deps;
    const revocation = options.settings.hasRevocationLists
      ? new Revocation({ log, onRejected: (reporter) => telemetry.peerRevoked(reporter) })
      : undefined;
    const loop = { time: options.loopTime, clock: options.deps.clock };
    this.loop = new LoopShares(loop, options.settings.isFair ? TURN_LIMITS : undefined);
    this.#deps = {
      ...options.deps,
      revocation,
      loop: this.loop,
      elsewhere: { claim: (claim) => this.#claim(claim) },
      neighbour: (podUid) => this.#neighbour(podUid),
    };
    this.#pushes = options.deps.verdicts.subscribe((push) => this.#receive(push));
  }

  /** Binds the listeners of one pod; throws when one cannot be bound. Owns what is inherited. */
  start(pod: ServedPod, netns: Netns, inherited?: Inheritance): LocalSet {
    const { settings, drainGraceMs, holdMs = drainGraceMs } = this.#options;
    const proxy = PodProxy.start({ ...pod, netns }, settings, this.#deps, inherited);
    proxy.setBudget(this.#budgetOf(pod.uid));
    this.#proxies.set(proxy, pod.uid);
    const graceMs = { graceful: drainGraceMs, held: holdMs, immediate: 0 } as const satisfies Record<StopMode, number>;
    return {
      needs: async () => proxy.needs,
      warm: (needs) => proxy.warm(needs),
      leaveListeners: async () => proxy.leaveListeners(),
      rest: () => proxy.rest(),
      serveAgain: (listeners) => proxy.serveAgain(listeners),
      moveSome: () => proxy.moveSome(),
      surrender: (claim) => proxy.surrender(claim),
      adopt: async (connections) => proxy.adopt(connections),
      stop: async (mode) => {
        await proxy.stop(graceMs[mode], mode === 'held' ? 'hold' : 'drain');
        this.#proxies.delete(proxy);
      },
    };
  }

  /** What is held ends within the drain grace. */
  hasten(): void {
    for (const proxy of this.#proxies.keys()) proxy.hasten(this.#options.drainGraceMs);
  }

  /** What pods may use in this thread, from now on. */
  setBudgets(table: BudgetTable): void {
    this.#budgets = { standard: table.standard, byPod: new Map(table.byPod) };
    for (const [proxy, uid] of this.#proxies) proxy.setBudget(this.#budgetOf(uid));
  }

  #budgetOf(podUid: string): Budget {
    return this.#budgets.byPod.get(podUid) ?? this.#budgets.standard;
  }

  /** One entry per pod and proxy. */
  usage(): readonly WorkloadUse[] {
    return [...this.#proxies.keys()].map(({ use }) => use);
  }

  /** A parked stream of a pod, for another thread that its client has found. The descriptors are the caller's. */
  async surrender(claim: StreamClaim): Promise<ClaimedStream> {
    const own = [...this.#proxies].filter(([, uid]) => uid === claim.podUid);
    return claimedOf(await Promise.all(own.map(([proxy]) => proxy.surrender(claim))));
  }

  /** Of a pod that came back there are two proxies, here already. */
  async #claim(claim: StreamClaim): Promise<ClaimedStream> {
    const { elsewhere } = this.#options.deps;
    const here = await this.surrender(claim);
    if (typeof here === 'object' || here === 'foreign' || elsewhere === undefined) return here;
    return claimedOf([here, await elsewhere.claim(claim)]);
  }

  counts(podUid: string): PodCounts | undefined {
    return [...this.#proxies].find(([, uid]) => uid === podUid)?.[0].counts;
  }

  #neighbour(podUid: string): PodContext | undefined {
    for (const [proxy, uid] of this.#proxies) {
      if (uid === podUid && proxy.neighbour !== undefined) return proxy.neighbour;
    }
    return undefined;
  }

  /** Entries by map, over all pods. */
  get sizes() {
    const sizes = { pods: this.#proxies.size, connections: 0, tunnels_in: 0, tunnels_out: 0 };
    for (const { counts } of this.#proxies.keys()) {
      sizes.connections += counts.connections;
      sizes.tunnels_in += counts.tunnelsIn;
      sizes.tunnels_out += counts.tunnelsOut;
    }
    return sizes;
  }

  /** See `DataPlane.shed`. */
  shed(count: number): number {
    const idlest = this.#connections()
      .map((connection) => ({ connection, idleMs: connection.idleMs }))
      .toSorted((a, b) => b.idleMs - a.idleMs)
      .slice(0, count);
    const error = new MeshError('CV-HOLD', 'connection closed: the agent that was replaced needs its memory');
    for (const { connection } of idlest) connection.close(error);
    return idlest.length;
  }

  #connections(): readonly Connection[] {
    return [...this.#proxies.keys()].flatMap((proxy) => proxy.connections);
  }

  /** Open connections, each with what would keep it from moving to another agent. */
  withObstacles(views: readonly ConnectionView[]): readonly ConnectionView[] {
    const obstacles = new Map(this.#connections().map(({ id, obstacle }) => [id, obstacle]));
    return views.map((view) => {
      const obstacle = obstacles.get(view.id);
      return obstacle === undefined ? view : { ...view, obstacle };
    });
  }

  [Symbol.dispose](): void {
    this.#pushes[Symbol.dispose]();
  }

  #receive(push: VerdictPush): void {
    switch (push.kind) {
      case 'certificate':
        // Renewed, or no pod uses it any more: either way the key that was must not stay in memory.
        this.#deps.contexts.drop(push.identity);
        return;
      case 'crls':
        void this.#replaceCrls(push.crls);
        return;
      case 'revoke': {
        const error = new MeshError(push.refusal.code, push.refusal.text);
        for (const proxy of this.#proxies.keys()) proxy.revoke(push.connectionIds, error);
      }
    }
  }

  /** Who sent the lists has read them already: what cannot be read here is a defect. */
  async #replaceCrls(crls: readonly Uint8Array[]): Promise<void> {
    const { revocation, log } = this.#deps;
    try {
      await revocation?.replace(crls);
    } catch (error) {
      log.error?.('revocation lists not taken over', { reason: 'CV-BUG', error: messageOf(error) });
    }
  }
}
