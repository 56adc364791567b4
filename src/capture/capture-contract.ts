/** What capturing one pod needs from others, and what it shows of itself. */
import type { Clock } from '../base/clock.ts';
import type { Logger } from '../base/log.ts';
import type { Netns, Sys } from '../sys/sys.ts';
import type { Limiter } from './limiter.ts';
import type { NetnsClaims } from './netns-claims.ts';
import type { MakeRules, RulesView } from './pod-rules.ts';
import type { CapturedPod } from './pod-source.ts';

/** `held`: gracefully, and for longer, as another agent serves the pods already. */
export type StopMode = 'graceful' | 'held' | 'immediate';

/** Listeners and connections of one pod. */
export interface ProxySet {
  /** Resolves when all listeners are closed and no connection is left. `immediate` also ends a stop that is under way. */
  stop(mode: StopMode): Promise<void>;
}

/** Resolves once all listeners are bound in `netns`, which stays open until the set has stopped. */
export type StartProxy = (pod: CapturedPod, netns: Netns) => Promise<ProxySet>;

export interface CaptureSettings {
  /** Pause before a failed pod is tried again. */
  readonly retryMs: number;
}

export type CaptureEvent = 'started' | 'stopped' | 'repaired';

export interface CaptureDeps {
  readonly sys: Sys;
  readonly clock: Clock;
  readonly log: Logger;
  readonly makeRules: MakeRules;
  readonly startProxy: StartProxy;
  readonly settings: CaptureSettings;
  readonly claims: NetnsClaims;
  readonly limiter: Limiter;
  /** Something an observer could see has changed. */
  readonly onChange: () => void;
  readonly onEvent: (event: CaptureEvent) => void;
}

export interface PodStatus extends RulesView {
  readonly pod: CapturedPod;
  /** `Up`: proxied and, if that is our business, redirected. `Pending`: tried again until it works or the pod leaves. */
  readonly state: 'Pending' | 'Up';
  readonly lastError?: { readonly code: string; readonly message: string };
}
