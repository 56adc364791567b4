/**
 * Pods as a CNI agent tells them over ZDS. It listens, we connect, for ever: while it is away the pods go on as they are,
 * and the agent is not ready.
 */
import type { Clock } from '../base/clock.ts';
import { MeshError, messageOf, toMeshError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { reasonOf } from '../base/reasons.ts';
import type { Sys } from '../sys/sys.ts';
import type { UnixSocket } from '../sys/unix-contract.ts';
import type { PodSink, PodSource } from './pod-source.ts';
import { ZdsPods } from './zds-pods.ts';
import { serveZds, type ZdsMessageKind } from './zds-session.ts';

/** As the reference: doubled before each pause. */
const FIRST_RETRY_MS = 10;
const MAX_RETRY_MS = 15_000;

export interface ZdsObserver {
  request(kind: ZdsMessageKind, result: 'ok' | 'refused'): void;
  connected(isConnected: boolean): void;
}

export interface ZdsSourceDeps {
  readonly sys: Sys;
  readonly clock: Clock;
  readonly log: Logger;
  readonly observer: ZdsObserver;
}

/** `path`: the socket of the CNI agent. */
export function zdsSource(path: string, deps: ZdsSourceDeps): PodSource {
  return { start: (sink) => new ZdsClient(path, sink, deps) };
}

class ZdsClient implements Disposable {
  readonly #path: string;
  readonly #sink: PodSink;
  readonly #deps: ZdsSourceDeps;
  readonly #pods: ZdsPods;
  /** Connections in a row that failed, or ended soon. */
  #failures = 0;
  #lastProblem: string | undefined;
  #socket: UnixSocket | undefined;
  #pause: Disposable | undefined;
  #isStopped = false;

  constructor(path: string, sink: PodSink, deps: ZdsSourceDeps) {
    this.#path = path;
    this.#sink = sink;
    this.#deps = deps;
    const { sys, clock, log } = deps;
    this.#pods = new ZdsPods({ sys, clock, log, sink, onSnapshot: () => this.#synced() });
    void this.#connect();
  }

  [Symbol.dispose](): void {
    this.#isStopped = true;
    this.#socket?.[Symbol.dispose]();
    this.#pause?.[Symbol.dispose]();
    this.#pods[Symbol.dispose]();
  }

  /** One connection from its start to its end, then the next. Never rejects. */
  async #connect(): Promise<void> {
    const { clock, observer } = this.#deps;
    const startedMs = clock.monotonicMs();
    const end = await this.#serve().catch((error: unknown) => toMeshError(error));
    observer.connected(false);
    if (this.#isStopped) return;
    this.#lost(end);
    if (this.#isStopped) return;
    // A peer that ends every connection soon must not keep us busy, however well it went until then.
    const wasOfUse = this.#pods.isSnapshotComplete && clock.monotonicMs() - startedMs >= MAX_RETRY_MS;
    this.#failures = wasOfUse ? 0 : this.#failures + 1;
    const pauseMs = wasOfUse ? 0 : Math.min(MAX_RETRY_MS, FIRST_RETRY_MS * 2 ** this.#failures);
    this.#pause = clock.after(pauseMs, () => void this.#connect());
  }

  async #serve(): Promise<never> {
    const { clock, observer } = this.#deps;
    using socket = this.#open();
    this.#socket = socket;
    observer.connected(true);
    this.#pods.begin();
    const onRequest = observer.request.bind(observer);
    return await serveZds(socket, { clock, pods: this.#pods, onRequest });
  }

  #open(): UnixSocket {
    try {
      return this.#deps.sys.connectUnix(this.#path, 'seqpacket');
    } catch (error) {
      throw new MeshError('CV-ZDS', `no CNI agent answers: ${messageOf(error)}`, {}, { cause: error });
    }
  }

  #synced(): void {
    this.#lastProblem = undefined;
    this.#deps.log.info?.('the CNI agent told all pods', { pods: this.#pods.size });
    this.#sink.synced();
  }

  #lost(error: MeshError): void {
    const { log } = this.#deps;
    if (error.fault === 'bug') log.error?.('defect in the connection to the CNI agent', { stack: String(error.stack) });
    // Said once, not every fifteen seconds.
    else if (error.message !== this.#lastProblem) {
      const { next } = reasonOf(error.code);
      log.warn?.('no pods from the CNI agent, trying again', { reason: error.code, error: error.message, next });
    }
    this.#lastProblem = error.message;
    this.#sink.lost(error);
  }
}
