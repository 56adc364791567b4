/** From responses to mesh updates: decodes, lets `AdsState` judge, changes the mesh, releases who waits, and answers. */
import { create, fromBinary, type MessageInitShape, toBinary } from '@bufbuild/protobuf';
import { ChangeLog } from '../base/change-log.ts';
import { type Clock, delay } from '../base/clock.ts';
import type { LogFields, Logger } from '../base/log.ts';
import { type AdsAcceptance, AdsState } from '../model/ads-state.ts';
import { type MeshUpdate, stepsOf } from '../model/mesh-update.ts';
import { policyKey } from '../model/policy.ts';
import { RecordStore } from '../model/record-store.ts';
import type { XdsMetrics } from '../telemetry/metrics-xds.ts';
import type { Node } from '../wire/pb/core_pb.ts';
import { DeltaDiscoveryResponseSchema, ResourceSchema } from '../wire/pb/discovery_pb.ts';
import {
  type DecodeDeps,
  decodeResponse,
  type Rejection,
  type ResponseDecoding,
  refusingUpdate,
  updateOf,
} from './decode-response.ts';
import { type DeltaResponse, type EncodedResources, readDeltaResponse, writeDeltaResponse } from './delta-response.ts';
import { Demands } from './demands.ts';
import { encodeFirstRequest, encodeRequest } from './encode-request.ts';
import { TYPE_URL } from './type-url.ts';

export interface MeshFeedOptions {
  readonly node: Node;
  /** Addresses are told only when they are asked for. */
  readonly isOnDemand: boolean;
  /** Resources of a type held at a time. Default: `MAX_HELD`. */
  readonly maxHeld?: number;
}

export interface MeshFeedDeps {
  readonly clock: Clock;
  readonly log: Logger;
  readonly metrics: XdsMetrics;
  /** Takes effect before it returns. Before `onReady` a large change comes in several. */
  readonly onUpdate: (update: MeshUpdate) => void;
  /** Once, when the whole mesh has been told. */
  readonly onReady: () => void;
  /** Keeps every change in encoded responses; what `restore` is given after a restart. */
  readonly archive?: { append(response: Uint8Array): void };
}

export interface FeedStatus {
  readonly isReady: boolean;
  /** A response was refused and what it held has not been told again. */
  readonly isBehind: boolean;
  /** Why the last one of those was refused; absent while nothing is behind. */
  readonly refusal?: string;
  readonly addresses: number;
  readonly policies: number;
  readonly waiting: number;
}

/** What to do about a response. */
export interface Answer {
  /** Encoded. Nothing to say to a response nobody asked for. */
  readonly request?: Uint8Array;
  readonly isResyncDue: boolean;
}

/** Resources of a type held at a time; an update that would bring more is refused. */
const MAX_HELD = 2_000_000;
/** Lines about refused responses: one in so many milliseconds at most. */
const LOG_PERIOD_MS = 10_000;
/** Longest reason in the status, characters; the log has all of it. */
const MAX_SHOWN = 500;
/**
 * Of what is archived beside the responses: a resource named like each type of which something was refused before it had been
 * told as a whole. Taken for whole after a restart, it would let through what nobody has decided yet.
 */
const PARTIAL_TYPE = 'culvert/partial';

export class MeshFeed {
  readonly #node: Node;
  readonly #maxHeld: number;
  readonly #deps: MeshFeedDeps;
  readonly #state: AdsState;
  readonly #demands = new Demands();
  readonly #decoding: DecodeDeps;
  readonly #refusals: ChangeLog;
  /** Types that the archive has as partial. */
  readonly #partial = new Set<string>();
  #isReady = false;
  /** Of the last refused response. */
  #refusal: string | undefined;

  constructor({ node, isOnDemand, maxHeld = MAX_HELD }: MeshFeedOptions, deps: MeshFeedDeps) {
    this.#node = node;
    this.#maxHeld = maxHeld;
    this.#deps = deps;
    this.#decoding = { clock: deps.clock, records: new RecordStore() };
    this.#refusals = new ChangeLog(deps.clock, LOG_PERIOD_MS);
    this.#state = new AdsState([
      { url: TYPE_URL.address, isOnDemand },
      { url: TYPE_URL.authorization, isOnDemand: false },
    ]);
  }

  get status(): FeedStatus {
    const { isBehind } = this.#state;
    return {
      isReady: this.#isReady,
      isBehind,
      ...(isBehind && this.#refusal !== undefined && { refusal: this.#refusal }),
      addresses: this.#state.held(TYPE_URL.address),
      policies: this.#state.held(TYPE_URL.authorization),
      waiting: this.#demands.size,
    };
  }

  /** A stream opened: what to send first, encoded, and before any `question`. */
  async opened(): Promise<readonly Uint8Array[]> {
    const requests: Uint8Array[] = [];
    for (const request of this.#state.opened()) {
      requests.push(await encodeFirstRequest(request, this.#node, this.#deps.clock));
    }
    return requests;
  }

  /** The server could not take a request of that size. */
  shrinkRequests(): void {
    this.#state.shrinkEcho();
  }

  /** Waits until `key` has been answered (true) or `signal` aborts (false). It is asked for with the next `question`. */
  async demand(key: string, signal: AbortSignal): Promise<boolean> {
    const answered = this.#demands.wait(key, signal, () => this.#state.abandon(key));
    if (this.#demands.has(key) && !signal.aborted) this.#state.demand(key);
    return await answered;
  }

  /** For what has been demanded since the last one, encoded; `undefined`: nothing. Only while a stream is open. */
  question(): Uint8Array | undefined {
    const request = this.#state.question();
    return request && encodeRequest(request, this.#node);
  }

  /** Begins with what was kept, before the first stream. A policy that could not be read then fails closed again. */
  async restore(messages: readonly Uint8Array[]): Promise<void> {
    const responses = messages.map(readDeltaResponse);
    for (const { typeUrl, resources } of responses) if (typeUrl === PARTIAL_TYPE) this.#restorePartial(resources);
    for (const response of responses) {
      if (!this.#state.isSubscribed(response.typeUrl)) continue;
      const decoding = await decodeResponse(response, () => undefined, this.#decoding);
      await this.#use(response, decoding);
      if (decoding.rejection !== undefined) this.#failClosed(response, decoding.rejection);
    }
    this.#checkReady();
  }

  /** Throws `CV-WIRE-MALFORMED` for what is no response at all. Takes several turns of the event loop; one call at a time. */
  async take(message: Uint8Array): Promise<Answer> {
    const response = readDeltaResponse(message);
    const { typeUrl } = response;
    if (!this.#state.isSubscribed(typeUrl)) {
      this.#refusals.note(typeUrl, () => this.#deps.log.warn?.('response of a type nobody asked for', { typeUrl }));
      return { isResyncDue: false };
    }
    this.#deps.metrics.messageReceived(typeUrl, message.length);
    const knownKey = (name: string, version: string) => this.#state.unchangedKey(typeUrl, name, version);
    const decoding = await decodeResponse(response, knownKey, this.#decoding);
    const rejection = decoding.rejection ?? this.#excess(response, decoding);
    if (rejection !== undefined) return this.#refuse(response, rejection);
    this.#deps.archive?.append(message);
    const { request, released, forgotten, isResyncDue } = await this.#use(response, decoding);
    if (forgotten.length > 0) this.#deps.archive?.append(encoded({ typeUrl, removedResources: [...forgotten] }));
    if (this.#state.isWhole(typeUrl) && this.#partial.delete(typeUrl))
      this.#deps.archive?.append(encoded({ typeUrl: PARTIAL_TYPE, removedResources: [typeUrl] }));
    this.#demands.release(released);
    this.#refusals.reset();
    this.#deps.log.debug?.('response applied', { typeUrl, resources: decoding.resources.length });
    this.#checkReady();
    return { request: encodeRequest(request, this.#node), isResyncDue };
  }

  async #use(
    { typeUrl, nonce, removed }: DeltaResponse,
    { resources, records }: ResponseDecoding,
  ): Promise<AdsAcceptance> {
    const acceptance = this.#state.accept({ typeUrl, nonce, resources, removed });
    await this.#apply(updateOf(records, acceptance.removedKeys, typeUrl === TYPE_URL.authorization));
    return acceptance;
  }

  /** In one turn, so that who decides sees all of it or nothing; in several while nobody decides by a mesh half told. */
  async #apply(update: MeshUpdate): Promise<void> {
    if (this.#isReady) {
      this.#deps.onUpdate(update);
      return;
    }
    for (const step of stepsOf(update)) {
      this.#deps.onUpdate(step);
      await delay(this.#deps.clock, 0);
    }
  }

  #excess({ typeUrl, removed }: DeltaResponse, { resources }: ResponseDecoding): Rejection | undefined {
    const room = this.#maxHeld - this.#state.held(typeUrl);
    if (resources.length <= room) return undefined;
    const isHeld = (name: string): boolean => this.#state.holds(typeUrl, name);
    const added = resources.filter(({ name }) => !isHeld(name)).length;
    if (added <= room + removed.filter(isHeld).length) return undefined;
    return { reason: `more than ${this.#maxHeld} resources in all`, badCount: 1, policies: [] };
  }

  #checkReady(): void {
    if (this.#isReady || !this.#state.isReady) return;
    this.#isReady = true;
    this.#deps.onReady();
  }

  #refuse(response: DeltaResponse, rejection: Rejection): Answer {
    const { typeUrl } = response;
    const { reason, badCount } = rejection;
    this.#refusal = `an update was refused: ${reason.slice(0, MAX_SHOWN)}`;
    const { request, unheard } = this.#failClosed(response, rejection);
    if (!this.#state.isWhole(typeUrl) && !this.#partial.has(typeUrl)) {
      this.#partial.add(typeUrl);
      this.#deps.archive?.append(encoded({ typeUrl: PARTIAL_TYPE, resources: [{ name: typeUrl }] }));
    }
    for (const { bytes } of unheard) this.#deps.archive?.append(writeDeltaResponse(typeUrl, [bytes]));
    this.#deps.metrics.messageRejected(typeUrl);
    this.#refusals.note(reason, (leftOut) => {
      const fields: LogFields = { reason: 'CV-XDS', typeUrl, resources: badCount, error: reason, leftOut };
      this.#deps.log.error?.('response refused, the last good state stays', fields);
    });
    return { request: encodeRequest(request, this.#node), isResyncDue: false };
  }

  #restorePartial(resources: EncodedResources): void {
    for (let i = 0; i < resources.count; i++) {
      const { name } = fromBinary(ResourceSchema, resources.at(i));
      if (!this.#state.isSubscribed(name)) continue;
      this.#partial.add(name);
      this.#state.setBehind(name);
    }
  }

  /** Whoever a policy selects that is new and cannot be read is refused until a good version comes; an old one stays in force. */
  #failClosed({ typeUrl, nonce }: DeltaResponse, { reason, policies }: Rejection) {
    const unheard = policies.filter(({ name }) => !this.#state.holds(typeUrl, name));
    const rejected = unheard.map(({ name, policy }) => ({ name, key: policyKey(policy) }));
    const request = this.#state.reject({ typeUrl, nonce }, reason, rejected);
    if (unheard.length > 0) this.#deps.onUpdate(refusingUpdate(unheard));
    return { request, unheard };
  }
}

function encoded(fields: MessageInitShape<typeof DeltaDiscoveryResponseSchema>): Uint8Array {
  return toBinary(DeltaDiscoveryResponseSchema, create(DeltaDiscoveryResponseSchema, fields));
}
