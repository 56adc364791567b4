/** One worker thread as the main thread holds it, from its start to its end, whoever brings that about. */
import { extname } from 'node:path';
import { Worker as Thread } from 'node:worker_threads';
import { type Clock, withDeadline } from '../../base/clock.ts';
import { MeshError, messageOf } from '../../base/errors.ts';
import type { Lane } from '../../model/lane.ts';
import type { ClaimedStream, StreamClaim } from '../../proxy/settings.ts';
import type { ConnectionView } from '../../telemetry/connection-view.ts';
import { addDnsGains } from '../../telemetry/dns-gains.ts';
import { type MirrorDeps, TrafficMirror } from '../../telemetry/traffic-mirror.ts';
import { orderWorker } from '../thread-order.ts';
import type { VerdictAuthority } from '../verdicts/verdict-authority.ts';
import type { BusyPod } from './busy-pods.ts';
import { HeartbeatWatch } from './heartbeat.ts';
import { type Item, PortLink } from './port-link.ts';
import {
  EXIT_DEFECT,
  type MainCalls,
  type PodInheritance,
  type PodStop,
  type WorkerCalls,
  type WorkerReport,
  type WorkerStart,
} from './protocol.ts';
import { VerdictSession } from './verdict-session.ts';

/** Loading the program takes a fraction of a second; on a machine without CPU to spare, many. */
const START_TIMEOUT_MS = 60_000;
/** From the wish that a thread end to the end of all waiting for it. */
const EXIT_TIMEOUT_MS = 5_000;
/** An exchange with a thread that may hang: views, numbers. */
const ANSWER_TIMEOUT_MS = 2_000;

/**
 * What a worker has for objects that have just been made, MiB: a third of it at a time, and the rest while it is collected.
 * Without a bound V8 lets it grow to 48 when thousands of connections open at once, and keeps it while they idle.
 */
const YOUNG_MIB = 12;

/** From sources and from `dist/` alike. */
const PROGRAM = {
  common: new URL(`./worker-thread${extname(import.meta.url)}`, import.meta.url),
  greedy: new URL(`./last-thread${extname(import.meta.url)}`, import.meta.url),
} as const satisfies Record<Lane, URL>;

export const WORKER_ENDS = ['defect', 'memory', 'hung', 'exit'] as const;
/** Why a worker ended that was not told to. */
export type WorkerEnd = (typeof WORKER_ENDS)[number];

export interface WorkerOptions {
  readonly start: Omit<WorkerStart, 'name' | 'generation' | 'certificateGeneration' | 'beat'>;
  readonly name: string;
  readonly heapMib: number;
  /** The module that the thread runs: `worker-thread.ts`, or something around it. */
  readonly program?: URL;
}

export interface WorkerDeps extends MirrorDeps {
  readonly clock: Clock;
  readonly authority: VerdictAuthority;
  readonly writeLines: (piece: string) => void;
  /** Asks the other workers for a parked stream. */
  readonly claim: (claim: StreamClaim, by: Worker) => Promise<ClaimedStream>;
  readonly busy: (pods: readonly BusyPod[], of: Worker) => void;
  readonly attacked: (podUid: string) => void;
}

export class Worker {
  readonly name: string;
  /** Resolves at the end of a worker that was not told to end. Its connections are ended and counted then. */
  readonly ended: Promise<WorkerEnd>;
  /** Resolves when the thread is no more, or hangs where it can do no harm. */
  readonly gone: Promise<void>;
  readonly mirror: TrafficMirror;
  readonly link: PortLink<MainCalls, WorkerCalls>;
  readonly #deps: WorkerDeps;
  readonly #thread: Thread;
  readonly #session: VerdictSession;
  readonly #heartbeat = new HeartbeatWatch();
  readonly #ready = Promise.withResolvers<void>();
  readonly #end = Promise.withResolvers<WorkerEnd>();
  readonly #gone = Promise.withResolvers<void>();
  #error: NodeJS.ErrnoException | undefined;
  #isFinishing = false;
  #isOver = false;
  #lost: readonly ConnectionView[] = [];

  constructor(options: WorkerOptions, deps: WorkerDeps) {
    const { authority } = deps;
    this.name = options.name;
    this.#deps = deps;
    this.mirror = new TrafficMirror(deps);
    this.ended = this.#end.promise;
    this.gone = this.#gone.promise;
    const start: WorkerStart = {
      ...options.start,
      name: options.name,
      generation: authority.generation.memory,
      certificateGeneration: authority.certificateGeneration.memory,
      beat: this.#heartbeat.memory,
    };
    this.#thread = orderWorker(
      start.lane,
      () =>
        new Thread(options.program ?? PROGRAM[start.lane ?? 'common'], {
          name: options.name,
          workerData: start,
          resourceLimits: { maxOldGenerationSizeMb: options.heapMib, maxYoungGenerationSizeMb: YOUNG_MIB },
        }),
    );
    const session: VerdictSession = new VerdictSession(authority, (push) => link.tell('push', push));
    const link: Worker['link'] = new PortLink<MainCalls, WorkerCalls>((items) => this.#thread.postMessage(items), {
      ...session.calls,
      report: (report) => this.#report(report),
      claim: (claim) => deps.claim(claim, this),
      busy: (pods) => {
        if (!this.#isOver) deps.busy(pods, this);
      },
      attacked: deps.attacked,
      ready: () => this.#ready.resolve(),
    });
    this.#session = session;
    this.link = link;
    session.open();
    this.#thread.on('message', (items: readonly Item[]) => this.link.receive(items));
    this.#thread.on('error', (error: NodeJS.ErrnoException) => (this.#error = error));
    this.#thread.on('exit', (code) => {
      this.#over(this.#endOf(code));
      this.#gone.resolve();
    });
  }

  /** Resolves when it can start pods; rejects when it cannot begin. */
  async ready(): Promise<void> {
    const late = (): MeshError =>
      new MeshError('CV-WORKER', `${this.name} did not start in ${START_TIMEOUT_MS / 1_000} s`);
    const failed = this.ended.then((end) => {
      throw new MeshError('CV-WORKER', `${this.name} did not start (${end}): ${messageOf(this.#error ?? 'no reason')}`);
    });
    try {
      await withDeadline(Promise.race([this.#ready.promise, failed]), this.#deps.clock, START_TIMEOUT_MS, late);
    } catch (error) {
      this.kill('exit');
      throw error;
    }
  }

  get isOver(): boolean {
    return this.#isOver;
  }

  /** What ended with this worker, once it is over. */
  get lost(): readonly ConnectionView[] {
    return this.#lost;
  }

  /** Rejects when a listener cannot be bound, or with `CV-WORKER` when the worker ends. */
  async startPod(start: PodInheritance): Promise<void> {
    await this.link.call('startPod', start);
  }

  /** Resolves when the pod's netns is not used here any more. */
  async stopPod(stop: PodStop): Promise<void> {
    try {
      await this.link.call('stopPod', stop);
    } catch {
      // The worker ended.
      await this.gone;
    }
  }

  /** What `ask` answers, or `fallback` when the worker does not. */
  async ask<Answer>(ask: (link: Worker['link']) => Promise<Answer>, fallback: Answer): Promise<Answer> {
    const late = (): MeshError => new MeshError('CV-WORKER', `${this.name} does not answer`);
    return await withDeadline(ask(this.link), this.#deps.clock, ANSWER_TIMEOUT_MS, late).catch(() => fallback);
  }

  /** As `HeartbeatWatch.isHung`. */
  isHung(periodMs: number, hangMs: number): boolean {
    return this.#heartbeat.isHung(periodMs, hangMs);
  }

  /** Lets it say what it has to say, then ends it. */
  async finish(): Promise<void> {
    this.#isFinishing = true;
    this.link.tell('finish', undefined);
    const late = (): MeshError => new MeshError('CV-WORKER', `${this.name} does not end`);
    await withDeadline(this.gone, this.#deps.clock, EXIT_TIMEOUT_MS, late).catch(() => this.kill('hung'));
    await this.gone;
  }

  /** Ends it now, for `end`. */
  kill(end: WorkerEnd): void {
    void this.#thread.terminate();
    this.#over(end);
    // It runs no JavaScript any more; should it hang in a system call, nobody must wait for that.
    this.#deps.clock.after(EXIT_TIMEOUT_MS, () => this.#gone.resolve());
  }

  #over(end: WorkerEnd): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.link.close(new MeshError('CV-WORKER', `${this.name} ended`));
    this.#session[Symbol.dispose]();
    const text = 'connection closed: the worker that carried it ended';
    this.#lost = this.mirror.lost({ code: 'CV-WORKER', text });
    if (!this.#isFinishing) this.#end.resolve(end);
  }

  #endOf(code: number): WorkerEnd {
    if (this.#error?.code === 'ERR_WORKER_OUT_OF_MEMORY') return 'memory';
    return code === EXIT_DEFECT || this.#error !== undefined ? 'defect' : 'exit';
  }

  #report(report: WorkerReport): void {
    if (this.#isOver) return;
    this.mirror.add(report.traffic);
    addDnsGains(this.#deps.metrics, report.dns);
    this.#session.add(report);
    for (const piece of report.lines) this.#deps.writeLines(piece);
  }
}
