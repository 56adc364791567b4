/** A pod with its namespace open and its proxy running: what has to be given back when it ends. */
import type { Netns } from '../sys/sys.ts';
import type { CaptureDeps, ProxySet, StopMode } from './capture-contract.ts';
import { isSameNetns, openUnlessGone } from './netns-claims.ts';
import type { CapturedPod } from './pod-source.ts';

type Deps = Pick<CaptureDeps, 'sys' | 'claims' | 'startProxy' | 'onEvent'>;

export class ActivePod {
  readonly netns: Netns;
  readonly #pod: CapturedPod;
  readonly #proxy: ProxySet;
  readonly #deps: Deps;
  #stopped: Promise<void> | undefined;

  private constructor(pod: CapturedPod, netns: Netns, proxy: ProxySet, deps: Deps) {
    this.#pod = pod;
    this.netns = netns;
    this.#proxy = proxy;
    this.#deps = deps;
  }

  /** Resolves when all listeners are bound. On failure nothing stays open or claimed. */
  static async start(pod: CapturedPod, deps: Deps): Promise<ActivePod> {
    const { sys, claims, startProxy, onEvent } = deps;
    const netns = sys.openNetns(pod.netnsPath);
    try {
      claims.claim(netns, pod.uid);
      const active = new ActivePod(pod, netns, await startProxy(pod, netns), deps);
      onEvent('started');
      return active;
    } catch (error) {
      claims.release(netns, pod.uid);
      netns[Symbol.dispose]();
      throw error;
    }
  }

  /** Whether the proxy can go on as it is for `pod`: only redirection options may change under it. */
  isServing(pod: CapturedPod): boolean {
    return (
      this.#stopped === undefined &&
      this.#pod.name === pod.name &&
      this.#pod.namespace === pod.namespace &&
      this.#pod.serviceAccount === pod.serviceAccount
    );
  }

  /** What the path leads to now, compared with what is open. */
  sandboxAt(path: string): 'same' | 'other' | 'gone' {
    using now = openUnlessGone(this.#deps.sys, path);
    if (now === undefined) return 'gone';
    return isSameNetns(now.id, this.netns.id) ? 'same' : 'other';
  }

  /** Once, whoever asks first. */
  stopProxy(mode: StopMode): Promise<void> {
    this.#stopped ??= this.#proxy.stop(mode);
    return this.#stopped;
  }

  /** What was stopped otherwise ends now: the pod is gone. */
  async cutProxy(): Promise<void> {
    if (this.#stopped === undefined) return;
    await this.#proxy.stop('immediate');
    await this.#stopped;
  }

  async end(mode: StopMode): Promise<void> {
    const { claims, onEvent } = this.#deps;
    try {
      await this.stopProxy(mode);
    } finally {
      claims.release(this.netns, this.#pod.uid);
      this.netns[Symbol.dispose]();
      onEvent('stopped');
    }
  }
}
