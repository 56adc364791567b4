/** Redirection that this agent writes: put in when the listeners stand, compared at every look, repaired, taken away. */
import { isDeepStrictEqual } from 'node:util';
import type { Clock } from '../base/clock.ts';
import type { Netns, Sys } from '../sys/sys.ts';
import type { CaptureJournal } from './capture-journal.ts';
import { type NetnsClaims, openUnlessGone } from './netns-claims.ts';
import { namesOf, type PodRules, type RulesObserver, type RulesView } from './pod-rules.ts';
import type { CapturedPod } from './pod-source.ts';
import type { Redirection } from './redirect.ts';
import type { Exemption, RedirectOptions } from './redirect-rules.ts';

const NO_DNS_PROXY =
  'DNS of the pod is not captured: this agent has no DNS proxy (ISTIO_META_DNS_CAPTURE=true makes one)';

/** Somebody else may write rules as often as we do: repairs are counted, and said this often for a pod. */
const SAID_EVERY_MS = 60_000;

export interface OwnRulesSettings {
  readonly ipv4: boolean;
  readonly ipv6: boolean;
  /** A DNS proxy listens in every pod, and DNS is sent to it unless the pod says otherwise. */
  readonly dnsCapture: boolean;
  /** Where the agent lives in the pod: what of its own traffic stays as it is. */
  readonly exempt?: Exemption;
}

export interface OwnRulesDeps {
  readonly sys: Sys;
  readonly clock: Clock;
  readonly redirection: Redirection;
  readonly settings: OwnRulesSettings;
  readonly claims: NetnsClaims;
  readonly journal?: CaptureJournal | undefined;
}

export class OwnRules implements PodRules {
  readonly #deps: OwnRulesDeps;
  readonly #observer: RulesObserver;
  /** Redirection as last put or found. */
  #applied: RedirectOptions | undefined;
  /** Fingerprint of the namespace when `#applied` was last found complete. */
  #verified: string | undefined;
  /** From the discovery that the redirection is not as wanted until it is again. */
  #isOpen = true;
  /** Connections that go past us may be left from while the rules were not there: also when closing them failed. */
  #mayHaveStale = false;
  #repairs = 0;
  #saidMs = Number.NEGATIVE_INFINITY;

  constructor(deps: OwnRulesDeps, observer: RulesObserver) {
    this.#deps = deps;
    this.#observer = observer;
  }

  get isInPlace(): boolean {
    return !this.#isOpen;
  }

  view(): RulesView {
    return { repairs: this.#repairs };
  }

  async ensure(pod: CapturedPod, netns: Netns): Promise<void> {
    const { redirection, journal } = this.#deps;
    const { log } = this.#observer;
    const wanted = this.#wanted(pod);
    const isSame = isDeepStrictEqual(wanted, this.#applied);
    // Taken before the look, so that what changes during it is seen next time.
    const fingerprint = redirection.fingerprint(netns);
    if (isSame && fingerprint === this.#verified) return;
    journal?.note(pod, netns);
    const differences = await redirection.verify(netns, wanted);
    this.#verified = differences.length === 0 ? fingerprint : undefined;
    if (differences.length > 0) {
      this.#isOpen = true;
      await redirection.apply(netns, wanted);
      this.#mayHaveStale = true;
      if (isSame) this.#repaired(pod, differences);
    }
    if (this.#mayHaveStale) this.#closeStale(pod, netns, wanted);
    this.#isOpen = false;
    if (this.#applied === undefined) {
      log.info?.('pod captured', { ...namesOf(pod), adopted: differences.length === 0 });
      if (pod.options.dnsCapture === true && !wanted.dnsCapture) log.warn?.(NO_DNS_PROXY, namesOf(pod));
    }
    this.#applied = wanted;
  }

  /**
   * New connections go past us first, so that none finds a closed door; then what we hold is closed, while its packets
   * still find their way; then all traces go.
   */
  async withdraw(pod: CapturedPod, active: Netns | undefined, stopProxy: () => Promise<void>): Promise<void> {
    const { redirection, claims, journal } = this.#deps;
    if (active === undefined) await this.#removeLeft(pod);
    else if (claims.isWantedByAnother(active, pod)) await stopProxy();
    else {
      await redirection.release(active);
      await stopProxy();
      await redirection.remove(active);
    }
    journal?.forget(pod.uid);
  }

  forget(): void {
    this.#applied = undefined;
    this.#verified = undefined;
    this.#isOpen = true;
    this.#mayHaveStale = false;
  }

  #closeStale(pod: CapturedPod, netns: Netns, wanted: RedirectOptions): void {
    const closed = this.#deps.redirection.closeStale(netns, wanted);
    this.#mayHaveStale = false;
    if (closed > 0)
      this.#observer.log.info?.('connections from before the capture closed', { ...namesOf(pod), closed });
  }

  #repaired(pod: CapturedPod, differences: readonly string[]): void {
    this.#repairs += 1;
    this.#observer.onRepair();
    const nowMs = this.#deps.clock.monotonicMs();
    if (nowMs - this.#saidMs < SAID_EVERY_MS) return;
    this.#saidMs = nowMs;
    this.#observer.log.warn?.('redirection repaired', {
      ...namesOf(pod),
      differences: differences.join(', '),
      repairs: this.#repairs,
    });
  }

  #wanted({ options }: CapturedPod): RedirectOptions {
    const { ipv4, ipv6, dnsCapture, exempt } = this.#deps.settings;
    const wanted = { ipv4, ipv6, ...options, dnsCapture: dnsCapture && options.dnsCapture !== false };
    return exempt === undefined ? wanted : { ...wanted, exempt };
  }

  /** Rules of an earlier agent may be in a pod that this one never got to work. */
  async #removeLeft(pod: CapturedPod): Promise<void> {
    const { sys, claims, redirection } = this.#deps;
    using netns = openUnlessGone(sys, pod.netnsPath);
    // Claimed, so that nobody is captured there meanwhile.
    if (netns === undefined || !claims.tryClaim(netns, pod)) return;
    try {
      await redirection.remove(netns);
    } finally {
      claims.release(netns, pod.uid);
    }
  }
}
