/** Joins capture and proxy: one `PodProxy` per captured pod, fed with verdict pushes. In each thread that carries traffic. */
import { MeshError, messageOf } from '../base/errors.ts';
import type { ProxySet, StopMode } from '../capture/capture-contract.ts';
import { Revocation } from '../identity/revocation.ts';
import type { VerdictPush } from '../model/verdict.ts';
import { PodProxy } from '../proxy/pod-proxy.ts';
import type { ProxyDeps, ProxySettings } from '../proxy/settings.ts';
import type { Netns } from '../sys/sys.ts';
import type { ServedPod } from './data-plane.ts';

export interface PodProxiesOptions {
  readonly settings: ProxySettings;
  readonly deps: Omit<ProxyDeps, 'revocation'>;
  /** How long connections may finish when the whole agent stops. */
  readonly drainGraceMs: number;
}

export interface PodCounts {
  readonly connections: number;
  readonly tunnelsIn: number;
  readonly tunnelsOut: number;
}

export class PodProxies implements Disposable {
  readonly #options: PodProxiesOptions;
  readonly #deps: ProxyDeps;
  readonly #proxies = new Map<string, PodProxy>();
  readonly #pushes: Disposable;

  constructor(options: PodProxiesOptions) {
    this.#options = options;
    const { log, telemetry } = options.deps;
    const revocation = options.settings.hasRevocationLists
      ? new Revocation({ log, onRejected: (reporter) => telemetry.peerRevoked(reporter) })
      : undefined;
    this.#deps = { ...options.deps, revocation };
    this.#pushes = options.deps.verdicts.subscribe((push) => this.#receive(push));
  }

  /** Binds the listeners of one pod; throws when one cannot be bound. */
  start(pod: ServedPod, netns: Netns): ProxySet {
    const { settings, drainGraceMs } = this.#options;
    const proxy = PodProxy.start({ uid: pod.uid, isAgent: pod.isAgent, netns }, settings, this.#deps);
    this.#proxies.set(pod.uid, proxy);
    return {
      stop: async (mode: StopMode) => {
        await proxy.stop(mode === 'graceful' ? drainGraceMs : 0);
        if (this.#proxies.get(pod.uid) === proxy) this.#proxies.delete(pod.uid);
      },
    };
  }

  counts(podUid: string): PodCounts | undefined {
    return this.#proxies.get(podUid)?.counts;
  }

  [Symbol.dispose](): void {
    this.#pushes[Symbol.dispose]();
  }

  #receive(push: VerdictPush): void {
    switch (push.kind) {
      case 'certificate':
        // Renewed, or no pod uses it any more: either way the key that was must not stay in memory.
        this.#deps.contexts.drop(push.identity);
        return;
      case 'crls':
        void this.#replaceCrls(push.crls);
        return;
      case 'revoke': {
        const error = new MeshError(push.refusal.code, push.refusal.text);
        for (const proxy of this.#proxies.values()) proxy.revoke(push.connectionIds, error);
      }
    }
  }

  /** Who sent the lists has read them already: what cannot be read here is a defect. */
  async #replaceCrls(crls: readonly Uint8Array[]): Promise<void> {
    const { revocation, log } = this.#deps;
    try {
      await revocation?.replace(crls);
    } catch (error) {
      log.error?.('revocation lists not taken over', { reason: 'CV-BUG', error: messageOf(error) });
    }
  }
}
