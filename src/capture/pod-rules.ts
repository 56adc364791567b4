/** The redirection of one pod, as its capture deals with it: written by this agent, or by a CNI agent and only watched. */
import type { Logger } from '../base/log.ts';
import type { Netns } from '../sys/sys.ts';
import type { CapturedPod } from './pod-source.ts';

export interface RulesView {
  /** How often the redirection had to be put back. */
  readonly repairs: number;
  /** What of the pod's traffic goes past us, when others write the rules; absent: nothing. */
  readonly notRedirected?: readonly Gap[];
}

/** Traffic that reaches no port of ours. `return`: answers to clients whose address we borrow. */
export interface Gap {
  readonly direction: 'outbound' | 'inbound' | 'return';
  readonly text: string;
}

export interface PodRules {
  /** True: the pod counts as captured once its proxy runs. */
  readonly isInPlace: boolean;
  /** The proxy of the pod runs in `netns`: compares, and acts if that is our business. Throws `CV-REDIRECT`. */
  ensure(pod: CapturedPod, netns: Netns): Promise<void>;
  /** The pod left. Calls `stopProxy` when its traffic goes past us again. `netns`: where its proxy runs, if it does. */
  withdraw(pod: CapturedPod, netns: Netns | undefined, stopProxy: () => Promise<void>): Promise<void>;
  /** The proxy ended: what was found says nothing about the namespace of the next one. */
  forget(): void;
  view(): RulesView;
}

export interface RulesObserver {
  readonly log: Logger;
  /** Something an observer could see has changed. */
  readonly onChange: () => void;
  readonly onRepair: () => void;
}

/** One for each pod. */
export type MakeRules = (observer: RulesObserver) => PodRules;

/** How log lines name a pod. */
export function namesOf({ uid, namespace, name }: CapturedPod): { readonly uid: string; readonly pod: string } {
  return { uid, pod: `${namespace}/${name}` };
}
