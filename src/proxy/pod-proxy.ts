/** The data plane of one pod: its listeners in its netns, its tunnels in and out, and their orderly end. */
import type net from 'node:net';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { type Clock, delay, withDeadline } from '../base/clock.ts';
import { MeshError, toMeshError } from '../base/errors.ts';
import type { Budget } from '../model/budget.ts';
import type { Arrival } from '../sys/arrivals.ts';
import { closeFd } from '../sys/duplicate.ts';
import { duplicateListener, listenForArrivals, listenOn, resetSocket } from '../sys/tcp.ts';
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
import { type Direction, PodContext, type ProxyPod, servesConnections } from './pod-context.ts';
import { resumeConnection } from './resume.ts';
import type { ClaimedStream, ProxyDeps, ProxySettings, StreamClaim } from './settings.ts';
import { serveSocks } from './socks.ts';
import { neededTunnels } from './tunnel-needs.ts';
import { type ConnectRequest, dialTunnel } from './tunnels.ts';

/** ztunnel's. */
const BACKLOG = 128;
/** Longest wait for connections that were told to close. */
const CLOSE_WITHIN_MS = 2_000;

/** What connections are told that have not ended in time. */
const STOP_ERRORS = {
  drain: new MeshError('CV-DRAIN', 'connection closed due to connection drain'),
  hold: new MeshError('CV-HOLD', 'connection closed: the agent that was replaced holds it no longer'),
} as const;
/** For a stream that is asked for from elsewhere: it is asked for again when its reader is slow. */
const SURRENDER_LIMITS = { flushMs: 100, suspendMs: 500 } as const;

/** Longest wait for tunnels before streams move; everything flows meanwhile. */
const WARM_OUT_MS = 1_000;
const WARM_IN_MS = 500;
const WARM_LOOK_MS = 2;

interface Listener {
  readonly port: number;
  readonly direction: Direction;
  /** Default: all addresses of the pod. */
  readonly address?: string;
  /** What it accepts is relayed in clear. */
  readonly isRelay?: boolean;
}

interface Served {
  readonly server: net.Server;
  readonly port: number;
}

/** Rejects only by a defect. */
type ServeSocket = (socket: net.Socket) => Promise<void>;

/** Makes a server of a descriptor that it owns from then on. */
type Serve = (fd: number, listener: Listener) => net.Server;

export class PodProxy {
  readonly #context: PodContext;
  readonly #pool: TunnelPool;
  readonly #hbone: HboneServer;
  readonly #dns: DnsServer | undefined;
  readonly #servers: Served[] = [];
  #sweeps: Disposable[] = [];
  #accepted = 0;
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
    this.#hbone = new HboneServer(context);
    this.#dns = settings.dns && new DnsServer(context, settings.dns);
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
      proxy.#close();
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
    const listeners = this.#servers.splice(0).flatMap((one) => this.#leaveListener(one));
    this.#hbone.goaway();
    this.#pool.releaseIdle();
    return listeners;
  }

  /** Nothing when this process has no room for its descriptor: who is next binds one then, and clients in its queue are reset. */
  #leaveListener({ server, port }: Served): readonly InheritedListener[] {
    try {
      return [{ port, fd: duplicateListener(server) }];
    } catch (error) {
      this.#context.deps.log.warn?.('a listener cannot be given away', { port, error: toMeshError(error).message });
      return [];
    } finally {
      server.close();
    }
  }

  /** Ends a rest, with listeners as for `start`; throws, at rest, when one cannot be bound. */
  serveAgain(listeners: readonly InheritedListener[]): void {
    if (this.#departure === undefined || this.#stopping !== undefined) {
      for (const { fd } of listeners) closeFd(fd);
      return;
    }
    this.#open(listeners);
    this.#departure = undefined;
    this.#context.parked.reopen();
    this.#hbone.reopen();
  }

  /** What its streams will ask for in the process that they move to: to be asked before the listeners are left. */
  get needs(): TunnelNeeds {
    return { out: neededTunnels(this.#context.connections), in: this.#hbone.resumingCount };
  }

  /** Opens the tunnels that streams on their way to this process will go on in, and waits a moment for those of others. */
  async warm({ out, in: incoming }: TunnelNeeds): Promise<void> {
    const { clock } = this.#context.deps;
    const late = (): MeshError => new MeshError('CV-TUNNEL-TIMEOUT', 'tunnels are not waited for any longer');
    const opened = Promise.all(out.map(({ key, streams }) => this.#pool.warm(key, streams)));
    await withDeadline(opened, clock, WARM_OUT_MS, late).catch(() => undefined);
    const endMs = clock.monotonicMs() + WARM_IN_MS;
    while (this.#hbone.tunnelCount < incoming && clock.monotonicMs() < endMs) await delay(clock, WARM_LOOK_MS);
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
    if (tunnel === undefined) return this.#isLeavingSome ? 'later' : 'nowhere';
    if (!tunnel.isOf(question)) return 'foreign';
    if (tunnel.stream.isClosed) return 'nowhere';
    return (await connections.get(tunnel.id)?.move(deps.clock, SURRENDER_LIMITS)) ?? 'later';
  }

  /** Who leaves asks its peers to suspend; their clients may be faster than their last word in the former tunnel. */
  get #isLeavingSome(): boolean {
    if (this.#departure === undefined) return false;
    return (
      this.#departure.isRecent || this.#context.connections.all().some(({ tunnel }) => tunnel?.stream.isHalted === true)
    );
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
    if (graceMs > 0) await this.#acceptQueued();
    this.#close();
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

  /** Clients in the queues of the kernel believe that they are connected; closing the listeners would reset them. */
  async #acceptQueued(): Promise<void> {
    // A turn accepts at least one of each queue; the first may begin after sockets were looked at.
    for (let turns = 0, seen = -1; seen !== this.#accepted && turns < 2 * BACKLOG; turns += 2) {
      seen = this.#accepted;
      await nextTurn();
      await nextTurn();
    }
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

  /** Binds all listeners or none, those given in place of its own. Owns them: for a port that is not served they are closed. */
  #open(given: readonly InheritedListener[]): void {
    const unused = new Set(given);
    try {
      this.#listen(unused);
    } catch (error) {
      this.#close();
      throw error;
    } finally {
      for (const { fd } of unused) closeFd(fd);
    }
  }

  #close(): void {
    for (const { server } of this.#servers.splice(0)) server.close();
  }

  #begin(listeners: readonly InheritedListener[]): void {
    const { pod } = this.#context;
    const { isAgent = false, serves = 'all' } = pod;
    if (servesConnections(pod)) this.#open(listeners);
    else this.rest();
    if (!isAgent && (serves === 'all' || serves === 'dns')) this.#dns?.listen();
  }

  #listen(inherited: Set<InheritedListener>): void {
    const { ports } = this.#context.settings;
    const context = this.#context;
    const services = { pool: this.#pool, dns: this.#dns };
    const bind = (listener: Listener, serve: Serve): void => {
      const ours = [...inherited].filter(({ port }) => port === listener.port);
      if (ours.length === 0) this.#serve(this.#bind(listener), listener, serve);
      for (const one of ours) {
        inherited.delete(one);
        this.#serve(one.fd, listener, serve);
      }
    };
    bind(
      { port: ports.hbone, direction: 'inbound' },
      this.#arrivals((arrival) => this.#hbone.accept(arrival)),
    );
    if (context.pod.isAgent === true) return;
    bind(
      { port: ports.plaintext, direction: 'inbound', isRelay: true },
      this.#sockets((socket) => servePlaintext(context, socket)),
    );
    bind(
      { port: ports.outbound, direction: 'outbound', isRelay: true },
      this.#sockets((socket) => serveOutbound(context, this.#pool, socket)),
    );
    if (ports.socks !== undefined) {
      bind(
        { port: ports.socks, direction: 'outbound', address: '127.0.0.1', isRelay: true },
        this.#sockets((socket) => serveSocks(context, services, socket)),
      );
    }
  }

  #bind({ port, address, isRelay = false }: Listener): number {
    const { pod, settings, deps } = this.#context;
    const isDualStack = settings.isIpv6Enabled && deps.sys.hasIpv6(pod.netns, 'lo');
    return deps.sys.listenTcp(pod.netns, {
      address: address ?? (isDualStack ? '::' : '0.0.0.0'),
      port,
      backlog: BACKLOG,
      isTransparent: true,
      isReusePort: settings.isReusePort,
      ...this.#context.mark,
      // Others have none in the reference (§1.15): HTTP/2 PINGs do that work, and what comes over loopback needs none.
      ...(settings.keepalive !== undefined && isRelay && address === undefined
        ? { keepalive: settings.keepalive }
        : {}),
    }).fd;
  }

  /** Owns `fd`. */
  #serve(fd: number, listener: Listener, serve: Serve): void {
    const { pod, deps } = this.#context;
    const { port } = listener;
    this.#servers.push({ server: serve(fd, listener), port });
    deps.log.debug?.('listener established', { port, pod: pod.uid });
  }

  #sockets(serve: ServeSocket): Serve {
    return (fd, listener) =>
      listenOn(fd, {
        onConnection: (socket) =>
          this.#accept(socket, listener, () => {
            serve(socket).catch((error: unknown) => {
              this.#context.refusalFor(error);
              resetSocket(socket);
            });
          }),
        onError: this.#onListenerError(listener),
        isLending: listener.isRelay === true,
      });
  }

  #arrivals(serve: (arrival: Arrival) => void): Serve {
    return (fd, listener) =>
      listenForArrivals(fd, {
        onArrival: (arrival) => this.#accept(arrival, listener, () => serve(arrival)),
        onError: this.#onListenerError(listener),
      });
  }

  #accept(what: Pick<Arrival, 'on'>, { direction }: Listener, serve: () => void): void {
    const { share } = this.#context;
    this.#accepted += 1;
    share.enter();
    this.#context.hold(what, direction);
    serve();
    share.leave();
  }

  #onListenerError({ port }: Listener): (error: Error) => void {
    return (error) => this.#context.deps.log.error?.('listener failed', { port, error: error.message });
  }
}

/** Calls `run` once per period until disposed. */
function every(clock: Clock, periodMs: number, run: () => void): Disposable {
  let timer = clock.after(periodMs, tick);
  function tick(): void {
    run();
    timer = clock.after(periodMs, tick);
  }
  return { [Symbol.dispose]: () => timer[Symbol.dispose]() };
}
