/** The data plane of one pod: its listeners in its netns, its tunnels in and out, and their orderly end. */
import type net from 'node:net';
import { every, withDeadline } from '../base/clock.ts';
import { MeshError, toMeshError } from '../base/errors.ts';
import type { Budget } from '../model/budget.ts';
import type { Arrival } from '../sys/arrivals.ts';
import { closeFd } from '../sys/duplicate.ts';
import type { WorkloadUse } from '../telemetry/workload-use.ts';
import { ClientPool, keyText, type TunnelKey } from '../tunnel/client-pool.ts';
import type { H2Stream } from '../tunnel/h2-stream.ts';
import type { IdleSweep } from '../tunnel/relay.ts';
import type { TunnelPool } from './connect.ts';
import type { Connection } from './connection.ts';
import { type Departed, Departure, type ShortCutEnd } from './departure.ts';
import { DnsServer } from './dns-server.ts';
import { HboneServer } from './hbone-server.ts';
import {
  descriptorsOf,
  type Inheritance,
  type InheritedConnection,
  type InheritedListener,
  NO_INHERITANCE,
  type TunnelNeeds,
} from './inheritance.ts';
import { serveOutbound } from './outbound.ts';
import { servePlaintext } from './plaintext.ts';
import { PodContext, type ProxyPod, servesConnections } from './pod-context.ts';
import { type PodListener, PodListeners } from './pod-listeners.ts';
import { resumeConnection } from './resume.ts';
import type { ClaimedStream, ProxyDeps, ProxySettings, StreamClaim } from './settings.ts';
import { serveSocks } from './socks.ts';
import { neededTunnels, warmTunnels } from './tunnel-needs.ts';
import { type ConnectRequest, dialTunnel } from './tunnels.ts';

/** Longest wait for connections that were told to close. */
const CLOSE_WITHIN_MS = 2_000;

/** For another thread to take the listeners of a pod that is attacked, once an attack. */
const TAKE_OVER_MS = 1_000;

/** What connections are told that have not ended in time. */
const STOP_ERRORS = {
  drain: new MeshError('CV-DRAIN', 'connection closed due to connection drain'),
  hold: new MeshError('CV-HOLD', 'connection closed: the agent that was replaced holds it no longer'),
} as const;
/**
 * For a stream that is asked for from elsewhere: it is asked for again when its reader is slow. Short, because many are asked for,
 * one after the other, and between them those that a process takes from us.
 */
const SURRENDER_LIMITS = { flushMs: 10, suspendMs: 500 } as const;

export class PodProxy {
  readonly #context: PodContext;
  readonly #pool: TunnelPool;
  readonly #hbone: HboneServer;
  readonly #dns: DnsServer | undefined;
  readonly #listeners: PodListeners;
  #sweeps: Disposable[] = [];
  #stopError = STOP_ERRORS.drain;
  #departure: Departure | undefined;
  /** To another process. */
  #isLeft = false;
  #stopping: Promise<void> | undefined;

  private constructor(context: PodContext) {
    const { settings, deps } = context;
    this.#context = context;
    this.#pool = new ClientPool<ConnectRequest, H2Stream>(
      { ...settings.pool, maxTunnels: settings.maxTunnels },
      {
        clock: deps.clock,
        dial: (key, onClosed) => dialTunnel(context, key, { onClosed, onGoaway: () => this.#peerLeaves(key) }),
      },
    );
    this.#hbone = new HboneServer(context, (isNew) => this.#attacked(isNew));
    this.#dns = settings.dns && new DnsServer(context, settings.dns);
    this.#listeners = new PodListeners(context, this.#served());
  }

  #served(): readonly PodListener[] {
    const context = this.#context;
    const pool = this.#pool;
    const { ports } = context.settings;
    const hbone = { port: ports.hbone, accept: (arrival: Arrival) => this.#hbone.accept(arrival) };
    const plaintext = { port: ports.plaintext, serve: (socket: net.Socket) => servePlaintext(context, socket) };
    const outbound = { port: ports.outbound, serve: (socket: net.Socket) => serveOutbound(context, pool, socket) };
    const all: PodListener[] = [{ ...hbone, direction: 'inbound' }];
    if (context.pod.isAgent === true) return all;
    all.push({ ...plaintext, direction: 'inbound', isKeptAlive: true });
    all.push({ ...outbound, direction: 'outbound', isKeptAlive: true });
    if (ports.socks === undefined) return all;
    const serve = (socket: net.Socket): Promise<void> => serveSocks(context, { pool, dns: this.#dns }, socket);
    all.push({ port: ports.socks, serve, direction: 'outbound', address: '127.0.0.1', isKeptAlive: false });
    return all;
  }

  /**
   * Binds all listeners or none: throws `CV-BIND` or `CV-NETNS` with nothing left open. Serves from then on. What is
   * inherited belongs to it: listeners take the place of its own, connections go on once they are judged again.
   */
  static start(
    pod: ProxyPod,
    settings: ProxySettings,
    deps: ProxyDeps,
    inherited: Inheritance = NO_INHERITANCE,
  ): PodProxy {
    const context = new PodContext(pod, settings, deps);
    const proxy = new PodProxy(context);
    try {
      proxy.#begin(inherited.listeners);
    } catch (error) {
      context.share.close();
      proxy.#listeners.close();
      proxy.#dns?.close(toMeshError(error));
      for (const fd of descriptorsOf({ ...inherited, listeners: [] })) closeFd(fd);
      throw error;
    }
    proxy.adopt(inherited.connections);
    proxy.#sweeps = [
      proxy.#sweep('any', settings.idleTimeoutMs, 'connection idle'),
      proxy.#sweep('half-closed', settings.halfClosedTimeoutMs, 'half-closed connection idle'),
    ];
    return proxy;
  }

  /** Whoever comes while another thread is made ready waits in the queue of the kernel. */
  #attacked(isNew: boolean): void {
    const { deps, pod, settings } = this.#context;
    const isTaken = deps.onAttack?.(pod.uid) === true;
    if (isTaken && isNew) this.#listeners.rest(settings.ports.hbone, TAKE_OVER_MS);
  }

  #sweep(kind: IdleSweep, idleMs: number, what: string): Disposable {
    const { connections, deps } = this.#context;
    const error = new MeshError('CV-IDLE', `${what} for ${Math.round(idleMs / 1_000)} s`, { idleMs });
    return every(deps.clock, idleMs, () => connections.closeIdle(kind, error));
  }

  /** Ends the live connections named, for `error`: a policy no longer allows them. */
  revoke(connectionIds: readonly string[], error: MeshError): void {
    for (const id of connectionIds) this.#context.connections.get(id)?.close(error);
  }

  /** For connections that come from another pod without a tunnel; `undefined` when this process would not take others either. */
  get neighbour(): PodContext | undefined {
    const isLeaving = this.#stopping !== undefined || this.#isLeft;
    return isLeaving || this.#context.pod.isAgent === true ? undefined : this.#context;
  }

  /** Open ones. */
  get connections(): readonly Connection[] {
    return this.#context.connections.all().toArray();
  }

  setBudget(budget: Budget): void {
    this.#context.admission.budget = budget;
  }

  /** What the pod uses of this thread. */
  get use(): WorkloadUse {
    const { pod, share, connections } = this.#context;
    return {
      podUid: pod.uid,
      loopSeconds: share.busyMs / 1_000,
      connections: share.connections,
      handshakes: share.handshakes,
      heldTurns: share.holds,
      receivedBytes: share.bytesIn,
      sentBytes: share.bytesOut,
      openConnections: connections.held,
      pendingHandshakes: this.#hbone.handshakeCount,
      bufferedBytes: share.bufferedBytes,
    };
  }

  get counts(): { readonly connections: number; readonly tunnelsIn: number; readonly tunnelsOut: number } {
    return {
      connections: this.#context.connections.size,
      tunnelsIn: this.#hbone.tunnelCount,
      tunnelsOut: this.#pool.tunnelCount,
    };
  }

  /** Goes on with connections of another process once they are judged again, and owns their descriptors. */
  adopt(connections: readonly InheritedConnection[]): void {
    for (const connection of connections) {
      const resumed = resumeConnection(this.#context, this.#pool, connection);
      resumed.catch((error: unknown) => this.#context.refusalFor(error));
    }
  }

  /**
   * Leaves the listeners to another process. Tunnels are told to end; connections go on until `moveSome` is asked for them, or
   * `stop`. The descriptors are the caller's.
   */
  leaveListeners(): readonly InheritedListener[] {
    this.#isLeft = true;
    const listeners = this.#leave('called');
    this.#dns?.stopListening();
    if (!this.#context.settings.isReusePort) this.#dns?.close(new MeshError('CV-DRAIN', 'another process answers'));
    return listeners;
  }

  /** The same for another thread of this process, until `serveAgain`. DNS stays. */
  rest(): readonly InheritedListener[] {
    return this.#leave(this.#context.settings.isShortCutAccepted ? 'caller' : undefined);
  }

  #leave(shortCuts: ShortCutEnd | undefined): readonly InheritedListener[] {
    const { connections, deps } = this.#context;
    this.#departure = new Departure(connections, deps.clock, shortCuts);
    this.#context.parked.leave();
    const listeners = this.#listeners.leave();
    this.#hbone.goaway();
    this.#pool.releaseIdle();
    return listeners;
  }

  /** Ends a rest, with listeners as for `start`; throws, at rest, when one cannot be bound. */
  serveAgain(listeners: readonly InheritedListener[]): void {
    if (this.#departure === undefined || this.#stopping !== undefined) {
      for (const { fd } of listeners) closeFd(fd);
      return;
    }
    this.#listeners.open(listeners);
    this.#departure = undefined;
    this.#context.parked.reopen();
    this.#hbone.reopen();
  }

  /** What its streams will ask for in the process that they move to: to be asked before the listeners are left. */
  get needs(): TunnelNeeds {
    return { out: neededTunnels(this.#context.connections), in: this.#hbone.resumingCount };
  }

  /** See `warmTunnels`. */
  async warm(needs: TunnelNeeds): Promise<void> {
    await warmTunnels(needs, { clock: this.#context.deps.clock, pool: this.#pool, server: this.#hbone });
  }

  /** Its streams will be asked to leave the tunnel; unless this process leaves too. */
  #peerLeaves(key: TunnelKey): void {
    if (this.#departure !== undefined || this.#stopping !== undefined) return;
    const name = keyText(key);
    const need = neededTunnels(this.#context.connections).find((one) => keyText(one.key) === name);
    if (need !== undefined) void this.#pool.warm(key, need.streams);
  }

  /** Once the listeners are left: a part of the connections that can move. Their descriptors are the caller's. */
  async moveSome(): Promise<Departed> {
    return (await this.#departure?.next()) ?? { connections: [], isLast: true };
  }

  /** A parked stream, for another thread or process that its client has found. */
  async surrender({ token, question }: StreamClaim): Promise<ClaimedStream> {
    const { parked, connections, deps } = this.#context;
    const tunnel = parked.get(token);
    if (tunnel === undefined) return this.#departure?.isLeavingSome === true ? 'later' : 'nowhere';
    if (!tunnel.isOf(question)) return 'foreign';
    if (tunnel.stream.isClosed) return 'nowhere';
    return (await connections.get(tunnel.id)?.move(deps.clock, SURRENDER_LIMITS)) ?? 'later';
  }

  /** A `stop` under way ends within `graceMs`. */
  hasten(graceMs: number): void {
    this.#context.deps.clock.after(graceMs, () => this.#cut());
  }

  #cut(): void {
    const error = this.#stopError;
    this.#context.connections.closeAll(error);
    this.#pool.close(error);
    this.#hbone.close(error);
  }

  /**
   * Stops accepting at once, says GOAWAY to tunnels, lets connections end for up to `graceMs`, then ends them. Those
   * on which nothing moves for the first half of it are ended then: nobody is in the middle of anything there, and their
   * clients come back before the rush. 0 = now: the pod is gone; that also ends a stop under way. Idempotent.
   */
  stop(graceMs: number, why: 'drain' | 'hold' = 'drain'): Promise<void> {
    this.#stopError = STOP_ERRORS[why];
    if (this.#stopping !== undefined && graceMs === 0) this.#cut();
    this.#stopping ??= this.#stop(graceMs);
    return this.#stopping;
  }

  async #stop(graceMs: number): Promise<void> {
    const { connections } = this.#context;
    for (const sweep of this.#sweeps) sweep[Symbol.dispose]();
    if (graceMs > 0) await this.#listeners.acceptQueued();
    this.#listeners.close();
    this.#dns?.stopListening();
    this.#hbone.goaway();
    this.#pool.releaseIdle();
    for (const partMs of graceMs > 0 ? [graceMs / 2, graceMs / 2] : []) {
      connections.closeIdle('drain', this.#stopError);
      await this.#emptyWithin(partMs);
    }
    this.#cut();
    this.#dns?.close(this.#stopError);
    // Sockets close in a later turn, and each connection writes its log line then: the process must not end before.
    await this.#emptyWithin(CLOSE_WITHIN_MS);
    this.#context.share.close();
  }

  async #emptyWithin(timeoutMs: number): Promise<void> {
    const late = (): MeshError => new MeshError('CV-DRAIN', 'grace is over');
    await withDeadline(this.#empty(), this.#context.deps.clock, timeoutMs, late).catch(() => undefined);
  }

  /** Resolves when no connection is left, no tunnel that could bring one, and no DNS query. */
  async #empty(): Promise<void> {
    const { connections } = this.#context;
    do {
      await connections.empty();
      await this.#hbone.empty();
      await this.#dns?.idle;
    } while (connections.held > 0);
  }

  #begin(listeners: readonly InheritedListener[]): void {
    const { pod } = this.#context;
    const { isAgent = false, serves = 'all' } = pod;
    if (servesConnections(pod)) this.#listeners.open(listeners);
    else this.rest();
    if (!isAgent && (serves === 'all' || serves === 'dns')) this.#dns?.listen();
  }
}
