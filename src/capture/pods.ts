/** All pods of this node that are captured or ought to be: told by a source, kept as told, looked over at intervals. */
import { setImmediate } from 'node:timers';
import { type Clock, every } from '../base/clock.ts';
import { MeshError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { reasonOf } from '../base/reasons.ts';
import type { Sys } from '../sys/sys.ts';
import type { CaptureEvent, CaptureSettings, PodStatus, StartProxy, StopMode } from './capture-contract.ts';
import type { CaptureJournal } from './capture-journal.ts';
import { ForeignRules } from './foreign-rules.ts';
import { Limiter } from './limiter.ts';
import { NetnsClaims, type NetnsScope, NodeNetns } from './netns-claims.ts';
import { NoRules } from './own-pod.ts';
import { OwnRules, type OwnRulesSettings } from './own-rules.ts';
import { PodCapture } from './pod-capture.ts';
import type { Gap, PodRules, RulesObserver } from './pod-rules.ts';
import type { CapturedPod, PodSource } from './pod-source.ts';
import type { Redirection } from './redirect.ts';
import type { RedirectionCheck } from './redirect-check.ts';

export interface PodManagerSettings extends CaptureSettings, OwnRulesSettings {
  /** How often every pod is compared with what is wanted. */
  readonly verifyMs: number;
  /** Pods worked on at the same time; each costs a few short-lived processes. */
  readonly maxConcurrent: number;
}

const POD_MANAGER_DEFAULTS: PodManagerSettings = {
  ipv4: true,
  ipv6: true,
  dnsCapture: false,
  retryMs: 5_000,
  verifyMs: 5_000,
  maxConcurrent: 8,
};

/** Who writes the redirection of pods. `none`: we do not know, and look for none. `journal`: without it, pods that left while no agent ran keep their rules. */
export type RulesWriter =
  | { readonly kind: 'agent'; readonly redirection: Redirection; readonly journal?: CaptureJournal }
  | { readonly kind: 'cni'; readonly check: RedirectionCheck }
  | { readonly kind: 'none' };

/** Looks at the redirection of pods at one time, when a CNI agent writes it: nothing waits for them. */
const MAX_LOOKS = 1;

export interface PodManagerDeps {
  readonly sys: Sys;
  readonly source: PodSource;
  readonly startProxy: StartProxy;
  readonly rules: RulesWriter;
  /** Default: pods only. */
  readonly scope?: NetnsScope;
  readonly clock: Clock;
  readonly log: Logger;
  readonly settings?: Partial<PodManagerSettings>;
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

export interface PodCounts {
  readonly up: number;
  readonly pending: number;
  /** Pods with such a gap. */
  readonly notRedirected: Readonly<Record<Gap['direction'], number>>;
}

export class PodManager {
  readonly #deps: PodManagerDeps;
  readonly #settings: PodManagerSettings;
  readonly #pods = new Map<string, PodCapture>();
  readonly #claims: NetnsClaims;
  readonly #limiter: Limiter;
  readonly #looks = new Limiter(MAX_LOOKS);
  /** Another agent serves the pods. */
  #isHolding = false;
  #isSynced = false;
  /** Since the list is complete, every pod on it was captured at some moment: those that come now are started, not waited for. */
  #isSettled = false;
  #problem: MeshError | undefined;
  /** Of which observers have not been told yet. */
  #hasNews = false;
  #isTelling = false;
  #source: Disposable | undefined;
  #timer: Disposable | undefined;

  constructor(deps: PodManagerDeps) {
    this.#deps = deps;
    this.#settings = { ...POD_MANAGER_DEFAULTS, ...deps.settings };
    this.#limiter = new Limiter(this.#settings.maxConcurrent);
    this.#claims = new NetnsClaims(new NodeNetns(deps.sys, deps.scope), () =>
      this.#wantedCaptures().map(({ described }) => described),
    );
  }

  start(): void {
    this.#source = this.#deps.source.start({
      upsert: (pod) => this.#upsert(pod),
      remove: async (uid) => this.#pods.get(uid)?.unwant(),
      synced: () => this.#synced(),
      lost: (error) => this.#lost(error),
      problem: (error) => this.#noteProblem(error),
    });
    this.#timer = every(this.#deps.clock, this.#settings.verifyMs, () => this.#verify());
  }

  /** Ready: the list is complete, every pod on it was captured, and none that came later has failed. */
  readiness(): Readiness {
    if (!this.#isSynced) return { isReady: false, waitingFor: this.#problem?.message ?? 'the first list of pods' };
    const waited = this.#wantedCaptures().filter((pod) => !pod.isUp && (pod.hasFailed || !this.#isSettled));
    return {
      isReady: waited.length === 0,
      waitingFor: waited
        .slice(0, 5)
        .map(({ uid }) => uid)
        .join(', '),
    };
  }

  counts(): PodCounts {
    const wanted = this.#wantedCaptures();
    const up = wanted.filter(({ isUp }) => isUp).length;
    const notRedirected = { outbound: 0, inbound: 0, return: 0 };
    for (const pod of wanted) {
      for (const direction of new Set(pod.gaps.map((gap) => gap.direction))) notRedirected[direction] += 1;
    }
    return { up, pending: wanted.length - up, notRedirected };
  }

  /** Wanted pods only. */
  statuses(): PodStatus[] {
    return this.#wantedCaptures().map((pod) => pod.status());
  }

  /** Why the list cannot be read at the moment, though an older one is in use. */
  get sourceProblem(): MeshError | undefined {
    return this.#problem;
  }

  /**
   * Stops all proxies at once and leaves the redirection where it is: see `PodCapture.stop`. While what could not move to
   * another agent is held, the source still tells which pods leave.
   */
  async stop(mode: StopMode): Promise<void> {
    this.#isHolding = mode === 'held';
    if (!this.#isHolding) this.#source?.[Symbol.dispose]();
    this.#timer?.[Symbol.dispose]();
    await Promise.all([...this.#pods.values()].map((pod) => pod.stop(mode)));
    this.#source?.[Symbol.dispose]();
    this.#journal?.[Symbol.dispose]();
  }

  #wantedCaptures(): PodCapture[] {
    return [...this.#pods.values()].filter(({ isWanted }) => isWanted);
  }

  async #upsert(pod: CapturedPod): Promise<MeshError | undefined> {
    if (this.#isHolding) return new MeshError('CV-DRAIN', 'another agent serves this node');
    const captured = (this.#pods.get(pod.uid) ?? this.#add(pod)).want(pod);
    this.#tell();
    return await captured;
  }

  #add(pod: CapturedPod): PodCapture {
    const capture = new PodCapture(pod, {
      ...this.#deps,
      settings: this.#settings,
      claims: this.#claims,
      limiter: this.#limiter,
      makeRules: (observer) => this.#makeRules(observer),
      onEvent: (event) => this.#deps.onEvent?.(event),
      onChange: () => this.#changed(pod.uid),
    });
    this.#pods.set(pod.uid, capture);
    return capture;
  }

  #makeRules(observer: RulesObserver): PodRules {
    const { sys, clock, rules } = this.#deps;
    switch (rules.kind) {
      case 'agent':
        return new OwnRules({ ...rules, sys, clock, settings: this.#settings, claims: this.#claims }, observer);
      case 'cni':
        return new ForeignRules({ check: rules.check, clock, limiter: this.#looks }, observer);
      case 'none':
        return new NoRules(observer);
    }
  }

  get #journal(): CaptureJournal | undefined {
    const { rules } = this.#deps;
    return rules.kind === 'agent' ? rules.journal : undefined;
  }

  #changed(uid: string): void {
    if (this.#pods.get(uid)?.isDone === true) {
      this.#pods.delete(uid);
      for (const pod of this.#pods.values()) if (pod.isWaitingFor(uid)) pod.check();
    }
    this.#tell();
  }

  #synced(): void {
    this.#isSynced = true;
    for (const pod of this.#journal?.left() ?? []) {
      if (!this.#pods.has(pod.uid)) void this.#add(pod).unwant();
    }
    this.#tell();
  }

  #lost(error: MeshError): void {
    // A new connection would be the newest, to which pods are added.
    if (this.#isHolding) this.#source?.[Symbol.dispose]();
    this.#isSynced = false;
    this.#isSettled = false;
    this.#problem = error;
    this.#tell();
  }

  /** At once, and what follows in the same turn together: a list of thousands changes by thousands, and observers look at all. */
  #tell(): void {
    this.#isSettled ||= this.#isSynced && this.#areAllUp();
    this.#hasNews = this.#isTelling;
    if (this.#isTelling) return;
    this.#isTelling = true;
    this.#deps.onChange?.();
    setImmediate(() => {
      this.#isTelling = false;
      if (this.#hasNews) this.#tell();
    });
  }

  #areAllUp(): boolean {
    for (const { isWanted, isUp } of this.#pods.values()) if (isWanted && !isUp) return false;
    return true;
  }

  #noteProblem(error: MeshError | undefined): void {
    if (error !== undefined && error.message !== this.#problem?.message) {
      const { next } = reasonOf(error.code);
      this.#deps.log.error?.('list of pods refused, the last good one stays', {
        reason: error.code,
        error: error.message,
        next,
      });
    }
    this.#problem = error;
    this.#tell();
  }

  #verify(): void {
    for (const pod of this.#pods.values()) if (pod.isUp) pod.check();
  }
}
