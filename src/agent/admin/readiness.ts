/** What the agent still waits for before it is ready, and the probe that says so. */
import type { Clock } from '../../base/clock.ts';
import type { Logger } from '../../base/log.ts';
import { type HttpAnswer, type HttpHandler, HttpServer } from './http-server.ts';

export type ReadinessTask =
  | 'data-plane workers'
  | 'dns proxy'
  | 'drain'
  | 'proxy'
  | 'state manager'
  | 'workload proxy manager';

/** Pending tasks. A task may come back: losing the pod source makes the agent unready again. */
export class Readiness {
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #pending = new Map<ReadinessTask, number>();
  #ready: PromiseWithResolvers<void> | undefined;
  #wasReady = false;

  constructor(deps: { readonly clock: Clock; readonly log: Logger }) {
    this.#clock = deps.clock;
    this.#log = deps.log;
  }

  get isReady(): boolean {
    return this.#pending.size === 0;
  }

  /** Resolves when nothing is pending. */
  async whenReady(): Promise<void> {
    if (this.isReady) return;
    this.#ready ??= Promise.withResolvers();
    await this.#ready.promise;
  }

  /** Sorted. */
  get pending(): readonly ReadinessTask[] {
    return [...this.#pending.keys()].toSorted();
  }

  /** `task` is pending from now on; nothing happens when it already is. */
  begin(task: ReadinessTask): void {
    if (this.#pending.has(task)) return;
    // Who stops is not ready any more, and has said so.
    if (this.#wasReady && this.isReady && task !== 'drain') {
      this.#log.warn?.(`Task '${task}' is pending again, marking server not ready`);
    }
    this.#pending.set(task, this.#clock.monotonicMs());
  }

  complete(task: ReadinessTask): void {
    const sinceMs = this.#pending.get(task);
    if (sinceMs === undefined) return;
    this.#pending.delete(task);
    const elapsed = `${Math.round(this.#clock.monotonicMs() - sinceMs)}ms`;
    const left = this.#pending.size;
    if (left === 0) {
      this.#wasReady = true;
      this.#ready?.resolve();
      this.#ready = undefined;
    }
    const rest = left === 0 ? 'marking server ready' : `still awaiting ${left} tasks`;
    this.#log.info?.(`Task '${task}' complete (${elapsed}), ${rest}`);
  }
}

export interface ReadinessServerOptions {
  readonly host: string;
  readonly port: number;
  readonly readiness: Pick<Readiness, 'pending'>;
  readonly clock: Clock;
  readonly log: Logger;
}

/** `GET /healthz/ready`, nothing else. */
export async function startReadinessServer({ readiness, ...rest }: ReadinessServerOptions): Promise<HttpServer> {
  return await HttpServer.listen({ ...rest, component: 'readiness', handler: readinessHandler(readiness) });
}

function readinessHandler(readiness: Pick<Readiness, 'pending'>): HttpHandler {
  return ({ method, path }): HttpAnswer => {
    if (path !== '/healthz/ready') return { status: 404 };
    if (method !== 'GET') return { status: 405 };
    const pending = readiness.pending;
    if (pending.length === 0) return { status: 200, type: 'text/plain', body: 'ready\n' };
    return { status: 500, type: 'text/plain', body: `not ready, pending: ${pending.join(', ')}\n` };
  };
}
