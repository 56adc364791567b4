/**
 * One pod from the moment it is wanted until it is gone: namespace, proxy set, redirection, in this order, so that a pod
 * is never redirected to ports nobody listens on. One loop per pod compares what is wanted with what is, and acts.
 */
import { MeshError, toMeshError } from '../base/errors.ts';
import { reasonOf } from '../base/reasons.ts';
import { ActivePod } from './active-pod.ts';
import type { CaptureDeps, PodStatus, StopMode } from './capture-contract.ts';
import { type Gap, namesOf, type PodRules } from './pod-rules.ts';
import type { CapturedPod } from './pod-source.ts';

export class PodCapture {
  readonly #deps: CaptureDeps;
  #described: CapturedPod;
  #isWanted = true;
  #isStopping = false;
  #active: ActivePod | undefined;
  readonly #rules: PodRules;
  #lastError: MeshError | undefined;
  /** Who asked for the pod, or for its end, and waits to hear how that went. */
  #waiting: ((error: MeshError | undefined) => void)[] = [];
  #loop: Promise<void> | undefined;
  #isDue = false;
  #retry: Disposable | undefined;

  constructor(pod: CapturedPod, deps: CaptureDeps) {
    this.#described = pod;
    this.#deps = deps;
    const { log, onChange, onEvent } = deps;
    this.#rules = deps.makeRules({ log, onChange, onRepair: () => onEvent('repaired') });
  }

  /**
   * The pod is to be captured as described here; also wakes a pod that waits for its next try. Resolves when it is, or with
   * the reason why it is not yet.
   */
  want(pod: CapturedPod): Promise<MeshError | undefined> {
    this.#described = pod;
    this.#isWanted = true;
    return this.#attempted();
  }

  /** The pod left: redirection away, proxy stopped. Resolves when that was tried; `isDone` tells that it is complete. */
  async unwant(): Promise<void> {
    this.#isWanted = false;
    // The agent ends, or was replaced: rules are the affair of the next one.
    if (this.#isStopping) await this.#active?.cutProxy();
    else await this.#attempted();
  }

  get uid(): string {
    return this.#described.uid;
  }

  get described(): CapturedPod {
    return this.#described;
  }

  /** The last try failed. */
  get hasFailed(): boolean {
    return this.#lastError !== undefined;
  }

  /** The last try failed because `uid` had the namespace. */
  isWaitingFor(uid: string): boolean {
    return this.#lastError?.fields['owner'] === uid;
  }

  get gaps(): readonly Gap[] {
    return this.#rules.view().notRedirected ?? [];
  }

  get isWanted(): boolean {
    return this.#isWanted;
  }

  get isUp(): boolean {
    return this.#active !== undefined && this.#rules.isInPlace;
  }

  get isDone(): boolean {
    return !this.#isWanted && this.#active === undefined && this.#loop === undefined && this.#lastError === undefined;
  }

  status(): PodStatus {
    const error = this.#lastError;
    return {
      pod: this.#described,
      state: this.isUp ? 'Up' : 'Pending',
      ...(error !== undefined && { lastError: { code: error.code, message: error.message } }),
      ...this.#rules.view(),
    };
  }

  /** Resolves with the outcome of the next round, or of the last of those that follow each other. */
  #attempted(): Promise<MeshError | undefined> {
    if (this.#isStopping) return Promise.resolve(new MeshError('CV-DRAIN', 'the agent is stopping'));
    const { promise, resolve } = Promise.withResolvers<MeshError | undefined>();
    this.#waiting.push(resolve);
    this.check();
    return promise;
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
    this.#answer(new MeshError('CV-DRAIN', 'the agent is stopping'));
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
    // With news there is another round, and its outcome is what counts.
    if (!this.#isDue) this.#answer(this.isUp ? undefined : (this.#lastError ?? hasLeft()));
    this.#deps.onChange();
  }

  #answer(error: MeshError | undefined): void {
    for (const answer of this.#waiting.splice(0)) answer(error);
  }

  #failed(error: MeshError): void {
    const { log, clock, settings } = this.#deps;
    // Said once, not every five seconds; the state shows it all the time. With news the next round says how it is.
    if (error.message !== this.#lastError?.message && !this.#isDue) {
      const task = this.#isWanted ? 'capture' : 'release';
      const { next } = reasonOf(error.code);
      log.warn?.('pod not done, trying again', {
        ...namesOf(this.#described),
        task,
        reason: error.code,
        error: error.message,
        next,
      });
    }
    this.#lastError = error;
    this.#retry = clock.after(settings.retryMs, () => this.check());
  }

  async #capture(): Promise<void> {
    await this.#leaveOldSandbox(this.#described);
    // Meanwhile it may have changed or left: what `#described` was may be gone.
    if (this.#isDue) return;
    const pod = this.#described;
    this.#active ??= await ActivePod.start(pod, this.#deps);
    await this.#rules.ensure(pod, this.#active.netns);
  }

  /** Same uid in another namespace, or as someone else: what served the old one ends now. Its rules stay: fail closed. */
  async #leaveOldSandbox(pod: CapturedPod): Promise<void> {
    const active = this.#active;
    if (active === undefined) return;
    const sandbox = active.sandboxAt(pod.netnsPath);
    if (sandbox === 'same' && active.isServing(pod)) return;
    this.#deps.log.info?.('pod changed, its proxy starts anew', { ...namesOf(pod), sandbox });
    await this.#dropProxy('immediate');
  }

  async #release(): Promise<void> {
    const active = this.#active;
    await this.#rules.withdraw(this.#described, active?.netns, async () => active?.stopProxy('immediate'));
    await this.#dropProxy('immediate');
    this.#deps.log.info?.('pod released', namesOf(this.#described));
  }

  async #dropProxy(mode: StopMode): Promise<void> {
    const active = this.#active;
    if (active === undefined) return;
    this.#active = undefined;
    this.#rules.forget();
    await active.end(mode);
  }
}

function hasLeft(): MeshError {
  return new MeshError('CV-DRAIN', 'the pod left before it was captured');
}
