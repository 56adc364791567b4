/** The one pod of dedicated mode: the network namespace that the agent itself runs in. */
import { namesOf, type PodRules, type RulesObserver, type RulesView } from './pod-rules.ts';
import type { CapturedPod, PodSource } from './pod-source.ts';

const OWN_NETNS = '/proc/self/ns/net';

/** There from the first moment, and for as long as the agent. */
export function ownPodSource(pod: Pick<CapturedPod, 'namespace' | 'name' | 'serviceAccount'>): PodSource {
  const { namespace, name, serviceAccount } = pod;
  const options = { isIngressMode: false, rerouteInterfaces: [] };
  return {
    start(sink) {
      void sink.upsert({ uid: `${namespace}/${name}`, namespace, name, serviceAccount, netnsPath: OWN_NETNS, options });
      sink.synced();
      return { [Symbol.dispose]: () => {} };
    },
  };
}

/** Somebody else redirects, in a way of their own: there is nothing to write and nothing to look for. */
export class NoRules implements PodRules {
  readonly isInPlace = true;
  readonly #observer: RulesObserver;
  #isSaid = false;

  constructor(observer: RulesObserver) {
    this.#observer = observer;
  }

  view(): RulesView {
    return { repairs: 0 };
  }

  async ensure(pod: CapturedPod): Promise<void> {
    if (this.#isSaid) return;
    this.#isSaid = true;
    this.#observer.log.info?.('pod served, whoever redirects it', namesOf(pod));
  }

  async withdraw(_pod: CapturedPod, _netns: unknown, stopProxy: () => Promise<void>): Promise<void> {
    await stopProxy();
  }

  forget(): void {
    this.#isSaid = false;
  }
}
