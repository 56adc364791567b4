/** Where the list of pods to capture comes from: a file or a CNI agent, behind the same interface. */
import type { MeshError } from '../base/errors.ts';

/** A pod as its source describes it. Equal by value means nothing to do. */
export interface CapturedPod {
  readonly uid: string;
  readonly name: string;
  readonly namespace: string;
  readonly serviceAccount: string;
  /** Any path that opens as a network namespace. Asked for anew at each use: that of a descriptor goes with its number. */
  readonly netnsPath: string;
  readonly options: PodOptions;
  /** Of the pod, where the source knows them. */
  readonly annotations?: Readonly<Record<string, string>>;
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
  /**
   * A pod that is to be captured: new, changed, or the same again. Resolves once it is, or with the reason why it is not
   * yet: it is tried again, until it works, or the pod is told anew or removed. Never rejects.
   */
  upsert(pod: CapturedPod): Promise<MeshError | undefined>;
  /**
   * The pod left the list, or left the mesh: its redirection is taken away, if that is our business. Resolves when nothing is
   * left of it, or when that fails for now and is tried again. Never rejects.
   */
  remove(uid: string): Promise<void>;
  /** All pods of a complete list were told. Pods captured by an earlier agent and not among them have left. */
  synced(): void;
  /** Until the next `synced` the list may be incomplete; what was told before stays. The agent is not ready meanwhile. */
  lost(error: MeshError): void;
  /** A newer list cannot be read; what was told before stays. `undefined`: it can be read again. */
  problem(error: MeshError | undefined): void;
}

export interface PodSource {
  /** Starts telling `sink` until disposed. Called once. */
  start(sink: PodSink): Disposable;
}
