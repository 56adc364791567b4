/** Redirection that a CNI agent writes: never touched, only looked at, because a pod that goes past us looks like any other. */
import { type Clock, delay } from '../base/clock.ts';
import { reasonOf } from '../base/reasons.ts';
import type { Netns } from '../sys/sys.ts';
import type { Limiter } from './limiter.ts';
import { type Gap, namesOf, type PodRules, type RulesObserver, type RulesView } from './pod-rules.ts';
import type { CapturedPod } from './pod-source.ts';
import type { Look, RedirectionCheck } from './redirect-check.ts';

/** How long what was found is believed when a change would not show; each look starts a few processes. */
const BELIEVED_MS = 60_000;
/** A look can wait: pods that come by the hundred, or for a moment, are better served without processes beside them. */
const FIRST_LOOK_MS = 500;
/** Starting a process holds up the event loop for some ms; between two looks it has time for others. */
const PAUSE_MS = 50;
const CODE = 'CV-NOT-REDIRECTED';

export interface ForeignRulesDeps {
  readonly check: RedirectionCheck;
  readonly clock: Clock;
  /** Looks of all pods. */
  readonly limiter: Limiter;
}

export class ForeignRules implements PodRules {
  /** The proxy serves whatever is sent to it. */
  readonly isInPlace = true;
  readonly #deps: ForeignRulesDeps;
  readonly #observer: RulesObserver;
  #gaps: readonly Gap[] = [];
  /** What was said last, so that it is said once. */
  #said: string | undefined;
  /** Fingerprint of the namespace, and the time, of the last look. */
  #looked: { readonly fingerprint: string | undefined; readonly untilMs: number } | undefined;
  #isLooking = false;
  #first: Disposable | undefined;

  constructor(deps: ForeignRulesDeps, observer: RulesObserver) {
    this.#deps = deps;
    this.#observer = observer;
  }

  view(): RulesView {
    return { repairs: 0, ...(this.#gaps.length === 0 ? {} : { notRedirected: this.#gaps }) };
  }

  /** Returns before the look is over: nobody should wait for what we do not change. */
  async ensure(pod: CapturedPod, netns: Netns): Promise<void> {
    const { clock } = this.#deps;
    if (this.#looked !== undefined) return this.#look(pod, netns);
    this.#first ??= clock.after(FIRST_LOOK_MS, () => {
      this.#first = undefined;
      this.#look(pod, netns);
    });
  }

  async withdraw(_pod: CapturedPod, _netns: Netns | undefined, stopProxy: () => Promise<void>): Promise<void> {
    await stopProxy();
  }

  forget(): void {
    this.#first?.[Symbol.dispose]();
    this.#first = undefined;
    this.#gaps = [];
    this.#said = undefined;
    this.#looked = undefined;
  }

  #look(pod: CapturedPod, netns: Netns): void {
    const { check, clock, limiter } = this.#deps;
    const fingerprint = this.#fingerprint(netns);
    const looked = this.#looked;
    const isSame = fingerprint !== undefined && looked?.fingerprint === fingerprint;
    if (this.#isLooking || (isSame && clock.monotonicMs() < looked.untilMs)) return;
    this.#isLooking = true;
    void limiter.run(async () => {
      // Before its turn came, or while it lasted, the proxy may have ended.
      const found = netns.fd < 0 ? undefined : await check.look(netns);
      this.#isLooking = false;
      if (netns.fd < 0 || found === undefined) return;
      const believedMs = found.isWatched ? Number.POSITIVE_INFINITY : BELIEVED_MS;
      this.#looked = { fingerprint, untilMs: clock.monotonicMs() + believedMs };
      this.#found(pod, found);
      await delay(clock, PAUSE_MS);
    });
  }

  /** `undefined`: the kernel does not tell, for want of descriptors or memory. */
  #fingerprint(netns: Netns): string | undefined {
    try {
      return this.#deps.check.fingerprint(netns);
    } catch {
      return undefined;
    }
  }

  #found(pod: CapturedPod, { gaps, unknown }: Look): void {
    this.#gaps = gaps;
    const said = JSON.stringify([gaps, unknown]);
    if (said === this.#said) return;
    this.#said = said;
    const { log } = this.#observer;
    const names = namesOf(pod);
    if (unknown !== undefined) {
      log.warn?.('pod served, but whether it is redirected to us cannot be told', { ...names, error: unknown });
    } else if (gaps.length > 0) {
      const missing = gaps.map(({ text }) => text).join(', ');
      log.warn?.('pod served, but its traffic goes past us', {
        ...names,
        reason: CODE,
        missing,
        next: reasonOf(CODE).next,
      });
    } else {
      log.info?.('pod captured', names);
    }
    this.#observer.onChange();
  }
}
