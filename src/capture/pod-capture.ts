/**
 * One pod from the moment it is wanted until it is gone: namespace, proxy set, redirection, in this order, so that a pod
 * is never redirected to ports nobody listens on. One loop per pod compares what is wanted with what is, and acts.
 */
import { isDeepStrictEqual } from 'node:util';
import { MeshError, toMeshError } from '../base/errors.ts';
import { reasonOf } from '../base/reasons.ts';
import type { Netns } from '../sys/sys.ts';
import { ActivePod } from './active-pod.ts';
import type { CaptureDeps, PodStatus, StopMode } from './capture-contract.ts';
import type { CapturedPod } from './pod-source.ts';
import type { RedirectOptions } from './redirect-rules.ts';

const NO_DNS_PROXY =
  'DNS of the pod is not captured: this agent has no DNS proxy (ISTIO_META_DNS_CAPTURE=true makes one)';

export class PodCapture {
  readonly #deps: CaptureDeps;
  #described: CapturedPod;
  #isWanted = true;
  #isStopping = false;
  #active: ActivePod | undefined;
  /** Redirection as last put or found. */
  #applied: RedirectOptions | undefined;
  /** Fingerprint of the namespace when `#applied` was last found complete. */
  #verified: string | undefined;
  /** From the discovery that the redirection is not as wanted until it is again. */
  #isOpen = true;
  #lastError: MeshError | undefined;
  #repairs = 0;
  #loop: Promise<void> | undefined;
  #isDue = false;
  #retry: Disposable | undefined;

  constructor(pod: CapturedPod, deps: CaptureDeps) {
    this.#described = pod;
    this.#deps = deps;
  }

  /** The pod is to be captured as described here; also wakes a pod that waits for its next try. */
  want(pod: CapturedPod): void {
    this.#described = pod;
    this.#isWanted = true;
    this.check();
  }

  /** The pod left: redirection away, proxy stopped. `isDone` turns true when that is complete. */
  unwant(): void {
    this.#isWanted = false;
    this.check();
  }

  get isWanted(): boolean {
    return this.#isWanted;
  }

  get isUp(): boolean {
    return this.#active !== undefined && !this.#isOpen;
  }

  get isDone(): boolean {
    return !this.#isWanted && this.#active === undefined && this.#loop === undefined && this.#lastError === undefined;
  }

  status(): PodStatus {
    const error = this.#lastError;
    return {
      pod: this.#described,
      state: this.isUp ? 'Up' : 'Pending',
      ...(error === undefined ? {} : { lastError: { code: error.code, message: error.message } }),
      repairs: this.#repairs,
    };
  }

  /** Compares and acts soon; at once when nothing is under way. */
  check(): void {
    this.#isDue = true;
    if (this.#isStopping) return;
    this.#loop ??= this.#run().finally(() => {
      this.#loop = undefined;
      // News may have come after the last look and before this turn.
      if (this.#isDue) this.check();
      this.#deps.onChange();
    });
  }

  /** The agent ends: redirection stays, so that until the next agent is there connections are refused, never plaintext. */
  async stop(mode: StopMode): Promise<void> {
    this.#isStopping = true;
    this.#retry?.[Symbol.dispose]();
    // Not after the loop: a tool that hangs in it must not hold up the drain.
    const active = this.#active;
    await Promise.allSettled([this.#loop, active?.stopProxy(mode)]);
    await this.#dropProxy(mode);
  }

  async #run(): Promise<void> {
    // The turn lets everything that came with the same news arrive first.
    await Promise.resolve();
    while (this.#isDue && !this.#isStopping) {
      this.#isDue = false;
      await this.#deps.limiter.run(() => this.#attempt());
    }
  }

  async #attempt(): Promise<void> {
    // It may have waited for its turn behind many others.
    if (this.#isStopping) return;
    this.#retry?.[Symbol.dispose]();
    try {
      await (this.#isWanted ? this.#capture() : this.#release());
      this.#lastError = undefined;
    } catch (error) {
      this.#failed(toMeshError(error));
    }
    this.#deps.onChange();
  }

  #failed(error: MeshError): void {
    const { log, clock, settings } = this.#deps;
    // Said once, not every five seconds; the state shows it all the time.
    if (error.message !== this.#lastError?.message) {
      const task = this.#isWanted ? 'capture' : 'release';
      const { next } = reasonOf(error.code);
      log.warn?.('pod not done, trying again', {
        ...this.#names(),
        task,
        code: error.code,
        reason: error.message,
        next,
      });
    }
    this.#lastError = error;
    this.#retry = clock.after(settings.retryMs, () => this.check());
  }

  async #capture(): Promise<void> {
    const pod = this.#described;
    await this.#leaveOldSandbox(pod);
    const active = this.#active ?? (await this.#start(pod));
    await this.#redirect(active.netns, pod);
  }

  /** Same uid in another namespace, or as someone else: what served the old one ends now. Its rules stay: fail closed. */
  async #leaveOldSandbox(pod: CapturedPod): Promise<void> {
    const active = this.#active;
    if (active === undefined) return;
    const sandbox = active.sandboxAt(pod.netnsPath);
    if (sandbox === 'same' && active.isServing(pod)) return;
    this.#deps.log.info?.('pod changed, its proxy starts anew', { ...this.#names(), sandbox });
    await this.#dropProxy('immediate');
  }

  async #start(pod: CapturedPod): Promise<ActivePod> {
    this.#active = await ActivePod.start(pod, this.#deps);
    return this.#active;
  }

  async #redirect(netns: Netns, pod: CapturedPod): Promise<void> {
    const { redirection, log } = this.#deps;
    const wanted = this.#redirectOptions(pod);
    const isSame = isDeepStrictEqual(wanted, this.#applied);
    // Taken before the look, so that what changes during it is seen next time.
    const fingerprint = redirection.fingerprint(netns);
    if (isSame && fingerprint === this.#verified) return;
    this.#deps.journal?.note(pod, netns);
    const differences = await redirection.verify(netns, wanted);
    this.#verified = differences.length === 0 ? fingerprint : undefined;
    if (differences.length > 0) {
      this.#isOpen = true;
      await redirection.apply(netns, wanted);
      const closed = redirection.closeStale(netns, wanted);
      if (closed > 0) log.info?.('connections from before the capture closed', { ...this.#names(), closed });
      if (isSame) this.#repaired(differences);
    }
    this.#isOpen = false;
    if (this.#applied === undefined) {
      log.info?.('pod captured', { ...this.#names(), adopted: differences.length === 0 });
      if (pod.options.dnsCapture === true && !wanted.dnsCapture) log.warn?.(NO_DNS_PROXY, this.#names());
    }
    this.#applied = wanted;
  }

  #repaired(differences: readonly string[]): void {
    this.#repairs += 1;
    this.#deps.onEvent('repaired');
    this.#deps.log.warn?.('redirection repaired', { ...this.#names(), differences: differences.join(', ') });
  }

  #redirectOptions({ options }: CapturedPod): RedirectOptions {
    const { ipv4, ipv6, dnsCapture } = this.#deps.settings;
    return { ipv4, ipv6, ...options, dnsCapture: dnsCapture && options.dnsCapture !== false };
  }

  /**
   * New connections go past us first, so that none finds a closed door; then what we hold is closed, while its packets
   * still find their way; then all traces go.
   */
  async #release(): Promise<void> {
    const { redirection, claims, journal, log } = this.#deps;
    const active = this.#active;
    const netns = active?.netns ?? this.#openQuietly();
    try {
      const isOurs = netns !== undefined && !claims.isWantedByAnother(netns, this.#described);
      if (isOurs && active !== undefined) await redirection.release(netns);
      await active?.stopProxy('immediate');
      if (isOurs) await redirection.remove(netns);
    } finally {
      if (active === undefined) netns?.[Symbol.dispose]();
    }
    await this.#dropProxy('immediate');
    journal?.forget(this.#described.uid);
    log.info?.('pod released', this.#names());
  }

  /** Rules of an earlier agent may be in a pod that this one never got to work. */
  #openQuietly(): Netns | undefined {
    const { sys, claims } = this.#deps;
    try {
      const netns = sys.openNetns(this.#described.netnsPath);
      if (claims.isFree(netns)) return netns;
      netns[Symbol.dispose]();
    } catch {
      // Gone: nothing is left to clean.
    }
    return undefined;
  }

  async #dropProxy(mode: StopMode): Promise<void> {
    const active = this.#active;
    if (active === undefined) return;
    this.#active = undefined;
    this.#applied = undefined;
    this.#verified = undefined;
    this.#isOpen = true;
    await active.end(mode);
  }

  #names(): { uid: string; pod: string } {
    const { uid, namespace, name } = this.#described;
    return { uid, pod: `${namespace}/${name}` };
  }
}
