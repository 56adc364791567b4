/** One delta ADS stream: its subscriptions, and the order in which they are served. */
import { messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { rpcRefusal } from '../../rpc/status.ts';
import type { Node } from '../../wire/pb/core_pb.ts';
import type { DeltaDiscoveryRequest, DeltaDiscoveryResponse } from '../../wire/pb/discovery_pb.ts';
import type { ResourceStore } from './resource-store.ts';
import { Subscription } from './subscription.ts';

export interface AdsSessionOptions {
  readonly store: ResourceStore;
  readonly log: Logger;
  /** Unique among the streams of this server. */
  readonly noncePrefix: string;
  /** Refuses by throwing `rpcRefusal`. */
  readonly admit: (node: Node) => void;
  readonly onNack: (typeUrl: string) => void;
}

/** Longest reason of a NACK that is logged, characters. */
const MAX_REASON = 1_000;

export class AdsSession {
  readonly #options: AdsSessionOptions;
  readonly #subscriptions = new Map<string, Subscription>();
  #node: Node | undefined;
  #nonces = 0;
  #wake: (() => void) | undefined;
  #isAwake = false;
  #lastNack = '';

  constructor(options: AdsSessionOptions) {
    this.#options = options;
  }

  get nodeId(): string {
    return this.#node?.id ?? '';
  }

  /** Throws `rpcRefusal` when the stream must end. */
  receive(request: DeltaDiscoveryRequest): void {
    this.#node ??= this.#admit(request.node);
    const { typeUrl } = request;
    if (!this.#options.store.typeUrls.includes(typeUrl)) {
      this.#options.log.debug?.('type not served', { node: this.nodeId, typeUrl });
      return;
    }
    try {
      const known = this.#subscriptions.get(typeUrl);
      if (known === undefined) this.#subscriptions.set(typeUrl, this.#subscribe(request, this.#node));
      else this.#note(typeUrl, known.receive(request));
    } catch (error) {
      throw rpcRefusal('RESOURCE_EXHAUSTED', messageOf(error));
    }
    this.wake();
  }

  changed(typeUrl: string, names: readonly string[]): void {
    this.#subscriptions.get(typeUrl)?.changed(names);
  }

  /** What to send next, types in the order of the store; `undefined` when everything was told. */
  next(): DeltaDiscoveryResponse | undefined {
    for (const typeUrl of this.#options.store.typeUrls) {
      const response = this.#subscriptions.get(typeUrl)?.next();
      if (response !== undefined) return response;
    }
    return undefined;
  }

  /** Resolves at the next `wake`, or at once when there was one since. */
  async asleep(): Promise<void> {
    if (!this.#isAwake) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#wake = resolve;
      await promise;
    }
    this.#isAwake = false;
  }

  wake(): void {
    this.#isAwake = true;
    this.#wake?.();
    this.#wake = undefined;
  }

  #admit(node: Node | undefined): Node {
    if (node === undefined || node.id === '') throw rpcRefusal('INVALID_ARGUMENT', 'the first request has no node id');
    this.#options.admit(node);
    return node;
  }

  #subscribe(request: DeltaDiscoveryRequest, node: Node): Subscription {
    const nodeName = node.metadata?.['NODE_NAME'];
    return new Subscription(request, {
      typeUrl: request.typeUrl,
      store: this.#options.store,
      nodeName: typeof nodeName === 'string' ? nodeName : '',
      nextNonce: () => {
        this.#nonces += 1;
        return `${this.#options.noncePrefix}-${this.#nonces.toString(36)}`;
      },
    });
  }

  /** A client that refuses the same again and again is logged once. */
  #note(typeUrl: string, answer: ReturnType<Subscription['receive']>): void {
    if (answer?.kind === 'ack') this.#lastNack = '';
    if (answer?.kind !== 'nack') return;
    this.#options.onNack(typeUrl);
    if (answer.reason === this.#lastNack) return;
    this.#lastNack = answer.reason;
    const error = answer.reason.slice(0, MAX_REASON);
    this.#options.log.warn?.('client refused an update', { node: this.nodeId, typeUrl, error });
  }
}
