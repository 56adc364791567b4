/** The listeners of one pod: bound in its namespace or taken over, all of them or none, until they are closed or left to others. */
import type net from 'node:net';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { toMeshError } from '../base/errors.ts';
import type { Arrival } from '../sys/arrivals.ts';
import { closeFd } from '../sys/duplicate.ts';
import { Intake } from '../sys/intake.ts';
import { listenForArrivals, listenOn, resetSocket } from '../sys/tcp.ts';
import { AcceptFailures } from './accept-failures.ts';
import type { InheritedListener } from './inheritance.ts';
import { ARRIVAL_MS, type Direction, type PodContext } from './pod-context.ts';

/** ztunnel's. */
const BACKLOG = 128;
/** From a listener that found no descriptor to its next try. */
const RETRY_MS = 50;

interface ListenerPlace {
  readonly port: number;
  readonly direction: Direction;
  /** Default: all addresses of the pod. */
  readonly address?: string;
}

/** What is relayed in clear. `serve` rejects only by a defect. */
interface RelayListener extends ListenerPlace {
  readonly serve: (socket: net.Socket) => Promise<void>;
  /** TCP asks whether the client is still there, as in ztunnel; what comes over loopback need not be asked. */
  readonly isKeptAlive: boolean;
}

/** What has to speak TLS first. HTTP/2 asks by PINGs whether it is still there. */
interface TunnelListener extends ListenerPlace {
  readonly accept: (arrival: Arrival) => void;
}

export type PodListener = RelayListener | TunnelListener;

export class PodListeners {
  readonly #context: PodContext;
  readonly #all: readonly PodListener[];
  readonly #intakes: Intake[] = [];
  readonly #failures: AcceptFailures;
  #accepted = 0;
  /** Whoever waits is to be accepted now. */
  #isEnding = false;

  constructor(context: PodContext, all: readonly PodListener[]) {
    this.#context = context;
    this.#all = all;
    this.#failures = new AcceptFailures(context.deps);
  }

  /**
   * Binds all or none, those given in place of its own: throws `CV-BIND` or `CV-NETNS`. Owns the given ones; those for ports that
   * are not served are closed.
   */
  open(given: readonly InheritedListener[]): void {
    const unused = new Set(given);
    try {
      for (const listener of this.#all) {
        const ours = [...unused].filter(({ port }) => port === listener.port);
        if (ours.length === 0) this.#serve(this.#bind(listener), listener);
        for (const one of ours) {
          unused.delete(one);
          this.#serve(one.fd, listener);
        }
      }
    } catch (error) {
      this.close();
      throw error;
    } finally {
      for (const { fd } of unused) closeFd(fd);
    }
  }

  close(): void {
    for (const intake of this.#intakes.splice(0)) intake.close();
  }

  /**
   * As `close`, with descriptors for others to go on with, the caller's. A listener for whose descriptor this process has no room is
   * not among them: who is next binds one then, and clients in its queue are reset.
   */
  leave(): readonly InheritedListener[] {
    return this.#intakes.splice(0).flatMap((intake) => {
      const { port } = intake;
      try {
        return [{ port, fd: intake.duplicate() }];
      } catch (error) {
        this.#context.deps.log.warn?.('a listener cannot be given away', { port, error: toMeshError(error).message });
        return [];
      } finally {
        // At once: that makes room for the next.
        intake.close();
      }
    });
  }

  /** Clients in the queues of the kernel believe that they are connected; closing the listeners would reset them. */
  async acceptQueued(): Promise<void> {
    this.#isEnding = true;
    for (const intake of this.#intakes) intake.goOn();
    // A turn accepts at least one of each queue; the first may begin after sockets were looked at.
    for (let turns = 0, seen = -1; seen !== this.#accepted && turns < 2 * BACKLOG; turns += 2) {
      seen = this.#accepted;
      await nextTurn();
      await nextTurn();
    }
  }

  #bind(listener: PodListener): number {
    const { pod, settings, deps, mark } = this.#context;
    const isDualStack = settings.isIpv6Enabled && deps.sys.hasIpv6(pod.netns, 'lo');
    const keepalive = 'serve' in listener && listener.isKeptAlive ? settings.keepalive : undefined;
    return deps.sys.listenTcp(pod.netns, {
      address: listener.address ?? (isDualStack ? '::' : '0.0.0.0'),
      port: listener.port,
      backlog: BACKLOG,
      isTransparent: true,
      isReusePort: settings.isReusePort,
      ...mark,
      ...(keepalive !== undefined && { keepalive }),
    }).fd;
  }

  /** Owns `fd`. */
  #serve(fd: number, listener: PodListener): void {
    const { pod, deps } = this.#context;
    const { port } = listener;
    const onError = (error: Error): void => this.#failures.note(port, error);
    const serve = (own: number): net.Server =>
      'serve' in listener
        ? listenOn(own, { onConnection: (socket) => this.#relay(socket, listener), onError, isLending: true })
        : listenForArrivals(own, { onArrival: (arrival) => this.#arrive(arrival, listener), onError });
    this.#intakes.push(new Intake(fd, port, serve));
    deps.log.debug?.('listener established', { port, pod: pod.uid });
  }

  #relay(socket: net.Socket, { direction, serve }: RelayListener): void {
    this.#begin(socket, direction);
    serve(socket).catch((error: unknown) => {
      this.#context.refusalFor(error);
      resetSocket(socket);
    });
    this.#context.share.leave();
  }

  #arrive(arrival: Arrival, { direction, port, accept }: TunnelListener): void {
    const { share } = this.#context;
    this.#begin(arrival, direction);
    accept(arrival);
    share.leave();
    const restMs = share.begins(ARRIVAL_MS);
    if ((restMs > 0 || share.isCapped) && !this.#isEnding) this.rest(port, restMs);
  }

  /** For so long, and until the share goes on: who waits in the queue of the kernel meanwhile is connected, and costs nothing. */
  rest(port: number, forMs: number): void {
    const { clock } = this.#context.deps;
    for (const intake of this.#intakes.filter((one) => one.port === port && !one.isResting)) {
      intake.rest();
      const goOn = (): void => {
        if (!intake.goOn()) clock.after(RETRY_MS, goOn);
      };
      clock.after(forMs, () => void Promise.resolve(this.#context.share.turnAgain()).then(goOn, goOn));
    }
  }

  #begin(accepted: Pick<Arrival, 'on'>, direction: Direction): void {
    this.#accepted += 1;
    this.#failures.reset();
    this.#context.share.enter();
    this.#context.hold(accepted, direction);
  }
}
