/** The delta ADS service of a control plane: who may ask, one session per stream, changes pushed after a quiet while. */
import type { Clock } from '../../base/clock.ts';
import { type MeshError, toMeshError } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import type { Random } from '../../base/random.ts';
import { type CallContext, type RpcService, rpcService } from '../../rpc/service.ts';
import type { Node } from '../../wire/pb/core_pb.ts';
import {
  AggregatedDiscoveryService,
  type DeltaDiscoveryRequest,
  type DeltaDiscoveryResponse,
} from '../../wire/pb/discovery_pb.ts';
import { AdsSession } from './ads-session.ts';
import { Debounce, type DebounceSettings } from './debounce.ts';
import type { ResourceStore } from './resource-store.ts';

export interface AdsServiceDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly store: ResourceStore;
  /** Who calls; refuses by throwing `rpcRefusal('UNAUTHENTICATED', …)`. */
  readonly authenticate: (context: CallContext) => Promise<Caller>;
}

/** Proven by the token or the certificate of the call. */
export interface Caller {
  readonly description: string;
  /** Refuses by throwing `rpcRefusal('PERMISSION_DENIED', …)` a node that is not the caller's own. */
  readonly admit: (node: Node) => void;
}

/** istiod's values. */
const ISTIOD_DEBOUNCE: DebounceSettings = { quietMs: 100, maxMs: 10_000 };

export class AdsService implements Disposable {
  readonly #deps: AdsServiceDeps;
  readonly #sessions = new Set<AdsSession>();
  readonly #debounce: Debounce;
  readonly #changes: Disposable;
  #nacks = 0;
  #streams = 0;

  constructor(deps: AdsServiceDeps, debounce = ISTIOD_DEBOUNCE) {
    this.#deps = deps;
    this.#debounce = new Debounce(deps.clock, debounce, () => {
      for (const session of this.#sessions) session.wake();
    });
    this.#changes = deps.store.subscribe((typeUrl, names) => {
      for (const session of this.#sessions) session.changed(typeUrl, names);
      this.#debounce.touch();
    });
  }

  /** For `RpcServer`. */
  get rpc(): RpcService {
    return rpcService(AggregatedDiscoveryService, {
      deltaAggregatedResources: (requests, context) => this.#stream(requests, context),
    });
  }

  /** Streams open, and refusals by clients so far. */
  get counts(): { readonly streams: number; readonly nacks: number } {
    return { streams: this.#sessions.size, nacks: this.#nacks };
  }

  [Symbol.dispose](): void {
    this.#changes[Symbol.dispose]();
    this.#debounce[Symbol.dispose]();
  }

  /** A response is made only when the transport has taken the one before: a slow client costs one, and misses nothing. */
  async *#stream(
    requests: AsyncIterable<DeltaDiscoveryRequest>,
    context: CallContext,
  ): AsyncGenerator<DeltaDiscoveryResponse, void, undefined> {
    const caller = await this.#deps.authenticate(context);
    const session = this.#open(caller);
    const reading = new Reading(requests, session);
    context.signal.addEventListener('abort', () => session.wake(), { once: true });
    try {
      while (!context.signal.aborted) {
        if (reading.error !== undefined) throw reading.error;
        const response = session.next();
        if (response !== undefined) yield response;
        else if (reading.isDone) return;
        else await session.asleep();
      }
    } finally {
      this.#sessions.delete(session);
      this.#deps.log.debug?.('client gone', { caller: caller.description, node: session.nodeId });
    }
  }

  #open(caller: Caller): AdsSession {
    const { store, log, random } = this.#deps;
    this.#streams += 1;
    const session = new AdsSession({
      store,
      log,
      noncePrefix: `${random.hex(4)}-${this.#streams.toString(36)}`,
      admit: caller.admit,
      onNack: () => {
        this.#nacks += 1;
      },
    });
    this.#sessions.add(session);
    return session;
  }
}

/** Feeds a session with requests until the client has no more. */
class Reading {
  isDone = false;
  error: MeshError | undefined;

  constructor(requests: AsyncIterable<DeltaDiscoveryRequest>, session: AdsSession) {
    void this.#read(requests, session);
  }

  async #read(requests: AsyncIterable<DeltaDiscoveryRequest>, session: AdsSession): Promise<void> {
    try {
      for await (const request of requests) session.receive(request);
    } catch (error) {
      this.error = toMeshError(error);
    }
    this.isDone = true;
    session.wake();
  }
}
