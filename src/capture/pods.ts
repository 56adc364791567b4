/** All pods of this node that are captured or ought to be: told by a source, kept as told, looked over at intervals. */
import type { Clock } from '../base/clock.ts';
import type { MeshError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { Sys } from '../sys/sys.ts';
import type { CaptureEvent, CaptureSettings, PodStatus, StartProxy, StopMode } from './capture-contract.ts';
import type { CaptureJournal } from './capture-journal.ts';
import { Limiter } from './limiter.ts';
import { NetnsClaims } from './netns-claims.ts';
import { PodCapture } from './pod-capture.ts';
import type { CapturedPod, PodSource } from './pod-source.ts';
import type { Redirection } from './redirect.ts';

export interface PodManagerSettings extends CaptureSettings {
  /** How often every pod is compared with what is wanted. */
  readonly verifyMs: number;
  /** Pods worked on at the same time; each costs a few short-lived processes. */
  readonly maxConcurrent: number;
}

export const POD_MANAGER_DEFAULTS: PodManagerSettings = {
  ipv4: true,
  ipv6: true,
  dnsCapture: false,
  retryMs: 5_000,
  verifyMs: 5_000,
  maxConcurrent: 8,
};

export interface PodManagerDeps {
  readonly sys: Sys;
  readonly source: PodSource;
  readonly startProxy: StartProxy;
  readonly redirection: Redirection;
  readonly clock: Clock;
  readonly log: Logger;
  readonly settings?: Partial<PodManagerSettings>;
  /** Without it, pods that left while no agent ran keep their rules. */
  readonly journal?: CaptureJournal;
  /** For metrics. */
  readonly onEvent?: (event: CaptureEvent) => void;
  /** Readiness, counts or a state may be different now. */
  readonly onChange?: () => void;
}

export interface Readiness {
  readonly isReady: boolean;
  /** What is waited for. */
  readonly waitingFor: string;
}

export class PodManager {
  readonly #deps: PodManagerDeps;
  readonly #settings: PodManagerSettings;
  readonly #pods = new Map<string, PodCapture>();
  readonly #claims: NetnsClaims;
  readonly #limiter: Limiter;
  #isSynced = false;
  #problem: MeshError | undefined;
  #source: Disposable | undefined;
  #timer: Disposable | undefined;

  constructor(deps: PodManagerDeps) {
    this.#deps = deps;
    this.#settings = { ...POD_MANAGER_DEFAULTS, ...deps.settings };
    this.#limiter = new Limiter(this.#settings.maxConcurrent);
    this.#claims = new NetnsClaims(deps.sys, () => this.#wantedPods());
  }

  start(): void {
    this.#source = this.#deps.source.start({
      upsert: (pod) => this.#upsert(pod),
      remove: (uid) => this.#pods.get(uid)?.unwant(),
      synced: () => this.#synced(),
      problem: (error) => this.#noteProblem(error),
    });
    this.#verifyLater();
  }

  /** Ready: the first complete list was read and every pod on it is captured. */
  readiness(): Readiness {
    if (!this.#isSynced) return { isReady: false, waitingFor: this.#problem?.message ?? 'the first list of pods' };
    const pending = this.statuses().filter(({ state }) => state === 'Pending');
    return {
      isReady: pending.length === 0,
      waitingFor: pending
        .map(({ pod }) => pod.uid)
        .slice(0, 5)
        .join(', '),
    };
  }

  /** Wanted pods only. */
  statuses(): PodStatus[] {
    return [...this.#pods.values()].filter(({ isWanted }) => isWanted).map((pod) => pod.status());
  }

  /** Why the list cannot be read at the moment, though an older one is in use. */
  get sourceProblem(): MeshError | undefined {
    return this.#problem;
  }

  /** Stops all proxies at once and leaves the redirection where it is: see `PodCapture.stop`. */
  async stop(mode: StopMode): Promise<void> {
    this.#source?.[Symbol.dispose]();
    this.#timer?.[Symbol.dispose]();
    await Promise.all([...this.#pods.values()].map((pod) => pod.stop(mode)));
    this.#deps.journal?.[Symbol.dispose]();
  }

  *#wantedPods(): Iterable<CapturedPod> {
    for (const { pod } of this.statuses()) yield pod;
  }

  #upsert(pod: CapturedPod): void {
    (this.#pods.get(pod.uid) ?? this.#add(pod)).want(pod);
  }

  #add(pod: CapturedPod): PodCapture {
    const capture = new PodCapture(pod, {
      ...this.#deps,
      settings: this.#settings,
      claims: this.#claims,
      limiter: this.#limiter,
      onEvent: (event) => this.#deps.onEvent?.(event),
      onChange: () => this.#changed(pod.uid),
    });
    this.#pods.set(pod.uid, capture);
    return capture;
  }

  #changed(uid: string): void {
    if (this.#pods.get(uid)?.isDone === true) {
      this.#pods.delete(uid);
      // Its namespace is free now, and another pod may be waiting for just that.
      for (const pod of this.#pods.values()) if (!pod.isUp) pod.check();
    }
    this.#deps.onChange?.();
  }

  #synced(): void {
    this.#isSynced = true;
    for (const pod of this.#deps.journal?.left() ?? []) {
      if (!this.#pods.has(pod.uid)) this.#add(pod).unwant();
    }
    this.#deps.onChange?.();
  }

  #noteProblem(error: MeshError | undefined): void {
    if (error !== undefined && error.message !== this.#problem?.message) {
      this.#deps.log.error?.('list of pods refused, the last good one stays', {
        code: error.code,
        reason: error.message,
      });
    }
    this.#problem = error;
    this.#deps.onChange?.();
  }

  #verifyLater(): void {
    this.#timer = this.#deps.clock.after(this.#settings.verifyMs, () => {
      for (const pod of this.#pods.values()) if (pod.isUp) pod.check();
      this.#verifyLater();
    });
  }
}
