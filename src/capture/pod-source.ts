/** Where the list of pods to capture comes from: a file now, Kubernetes or a CNI agent behind the same interface. */
import type { MeshError } from '../base/errors.ts';

/** A pod as its source describes it. Equal by value means nothing to do. */
export interface CapturedPod {
  readonly uid: string;
  readonly name: string;
  readonly namespace: string;
  readonly serviceAccount: string;
  /** Any path that opens as a network namespace, `/proc/self/fd/<n>` of a received descriptor included. */
  readonly netnsPath: string;
  readonly options: PodOptions;
}

export interface PodOptions {
  /** No capture of inbound plaintext; 15008 and outbound capture stay. */
  readonly isIngressMode: boolean;
  /** `false`: DNS of this pod is left alone. `true` asks for a DNS proxy, which the agent may not have. */
  readonly dnsCapture?: boolean;
  /** Interfaces of guests behind the pod whose TCP is treated as outbound. */
  readonly rerouteInterfaces: readonly string[];
}

/** Told by a source, in order, on the event loop. */
export interface PodSink {
  /** A pod that is to be captured: new, changed, or the same again. */
  upsert(pod: CapturedPod): void;
  /** The pod left the list, or left the mesh: its redirection is taken away. */
  remove(uid: string): void;
  /** All pods of the first complete list were told. Pods captured before and not among them have left. */
  synced(): void;
  /** The list cannot be read; what was told before stays. `undefined`: it can be read again. */
  problem(error: MeshError | undefined): void;
}

export interface PodSource {
  /** Starts telling `sink` until disposed. Called once. */
  start(sink: PodSink): Disposable;
}
