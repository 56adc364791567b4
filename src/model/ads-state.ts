/**
 * What a delta xDS client says and believes: events of one stream after another go in, requests and consequences come
 * out. It does not send, decode or wait.
 *
 * A response is taken whole or refused whole. After a refusal the server thinks it has sent what we do not have, so the type is
 * *behind* until a new stream has told everything again; a complete answer is what a type needs to be ready.
 */
import { AdsNames, type AdsResource } from './ads-names.ts';

export interface AdsType {
  readonly url: string;
  /** Nothing is sent but what was asked for by name. */
  readonly isOnDemand: boolean;
}

export interface AdsRequest {
  readonly typeUrl: string;
  /** First of its type on this stream: the node goes with it. */
  readonly isFirst: boolean;
  readonly subscribe: readonly string[];
  readonly unsubscribe: readonly string[];
  readonly initialVersions: ReadonlyMap<string, string>;
  readonly nonce: string;
  /** Makes it a NACK. */
  readonly error?: string;
}

export interface AdsResponse {
  readonly typeUrl: string;
  readonly nonce: string;
  readonly resources: readonly AdsResource[];
  readonly removed: readonly string[];
}

/** To be done in this order: change the mesh, release who waits, send the request. */
export interface AdsAcceptance {
  readonly request: AdsRequest;
  /** Keys of resources that are gone; wins over a resource of the same response. */
  readonly removedKeys: ReadonlySet<string>;
  /** Names that are gone although the response does not name them: copies, and what a whole answer does not have. */
  readonly forgotten: readonly string[];
  /** Demanded keys that have been answered. */
  readonly released: readonly string[];
  /** The type is behind, and something changed at the server: a new stream may bring it up to date. */
  readonly isResyncDue: boolean;
}

/** A resource that could not be decoded, and yet has an effect that must end when it does. */
export interface RejectedResource {
  readonly name: string;
  readonly key: string;
}

interface TypeState {
  readonly type: AdsType;
  readonly names: AdsNames;
  /** Name → key of rejected resources that have an effect. Never echoed. */
  readonly rejected: Map<string, string>;
  /** The next response is the first of the stream: it tells everything that was not echoed. */
  isFirstDue: boolean;
  /** Nothing was echoed, so what the first response does not have is gone. */
  isUnechoed: boolean;
  isBehind: boolean;
  isSynced: boolean;
}

/** Largest echo of names and versions, bytes; with more, everything is told again instead. */
const MAX_ECHO_BYTES = 32 * 1024 * 1024;
/** What fits where 4 MiB are received at most, as by istiod. */
const SMALL_ECHO_BYTES = 3 * 1024 * 1024;
/** What protobuf adds to an entry. */
const ENTRY_BYTES = 12;
const NO_VERSIONS: ReadonlyMap<string, string> = new Map();

export class AdsState {
  readonly #types: ReadonlyMap<string, TypeState>;
  #maxEchoBytes: number;
  readonly #pending = new Set<string>();
  /** Of the pending keys those that are in no request of this stream. */
  readonly #unasked = new Set<string>();

  constructor(types: readonly AdsType[], maxEchoBytes = MAX_ECHO_BYTES) {
    this.#types = new Map(types.map((type) => [type.url, newState(type)]));
    this.#maxEchoBytes = maxEchoBytes;
  }

  /** Every type that sends everything has been told everything once. Never goes back. */
  get isReady(): boolean {
    return [...this.#types.values()].every(({ type, isSynced }) => type.isOnDemand || isSynced);
  }

  get isBehind(): boolean {
    return [...this.#types.values()].some(({ isBehind }) => isBehind);
  }

  /** Demanded keys without an answer. */
  get pending(): ReadonlySet<string> {
    return this.#pending;
  }

  isSubscribed(typeUrl: string): boolean {
    return this.#types.has(typeUrl);
  }

  /** Resources held of a type. */
  held(typeUrl: string): number {
    return this.#types.get(typeUrl)?.names.size ?? 0;
  }

  holds(typeUrl: string, name: string): boolean {
    return this.#types.get(typeUrl)?.names.has(name) ?? false;
  }

  /** All there is of a type has been told once. */
  isWhole(typeUrl: string): boolean {
    return this.#types.get(typeUrl)?.isSynced ?? false;
  }

  /** What is accepted of a type before the next stream is not all there is. */
  setBehind(typeUrl: string): void {
    this.#state(typeUrl).isBehind = true;
  }

  /**
   * Key of a resource that is told again only because nothing was echoed: with an echo the server itself would have left
   * out this name with this version.
   */
  unchangedKey(typeUrl: string, name: string, version: string): string | undefined {
    const state = this.#types.get(typeUrl);
    if (state === undefined || version === '' || !state.isFirstDue || !state.isUnechoed) return undefined;
    return state.names.keyAt(name, version);
  }

  /** The server did not take a request because of its size. */
  shrinkEcho(): void {
    this.#maxEchoBytes = Math.min(this.#maxEchoBytes, SMALL_ECHO_BYTES);
  }

  /** A stream is open: the requests to send before anything else. */
  opened(): readonly AdsRequest[] {
    this.#unasked.clear();
    return [...this.#types.values()].flatMap((state) => this.#openingOf(state));
  }

  /** Goes with the next question, or with the opening of the next stream. */
  demand(key: string): void {
    if (this.#onDemand() === undefined || this.#pending.has(key)) return;
    this.#pending.add(key);
    this.#unasked.add(key);
  }

  /** Nobody waits for `key` any more. */
  abandon(key: string): void {
    this.#pending.delete(key);
    this.#unasked.delete(key);
  }

  /** For all keys that were demanded and not asked for on the stream that is open; `undefined`: there is none. */
  question(): AdsRequest | undefined {
    const state = this.#onDemand();
    if (state === undefined || this.#unasked.size === 0) return undefined;
    const subscribe = [...this.#unasked];
    this.#unasked.clear();
    return requestOf(state, { subscribe });
  }

  /** Every resource of the response has been decoded. */
  accept({ typeUrl, nonce, resources, removed }: AdsResponse): AdsAcceptance {
    const state = this.#state(typeUrl);
    const removedKeys = new Set<string>();
    const remove = (key: string | undefined): void => {
      if (key !== undefined) removedKeys.add(key);
    };
    for (const resource of resources) {
      remove(state.names.hold(resource));
      state.rejected.delete(resource.name);
    }
    // Told by another name, in this response or before.
    for (const key of removedKeys) if (state.names.isHeld(key)) removedKeys.delete(key);
    const forgotten = [...untold(state, resources)];
    for (const name of [...removed, ...forgotten]) {
      forgotten.push(...state.names.copiesOf(name));
      remove(state.names.drop(name));
      remove(state.rejected.get(name));
      state.rejected.delete(name);
    }
    const isComplete = state.isFirstDue;
    if (isComplete) state.isBehind = false;
    if (!state.isBehind) state.isSynced = true;
    state.isFirstDue = false;
    state.isUnechoed = false;
    return {
      request: requestOf(state, { nonce }),
      removedKeys,
      forgotten,
      released: this.#release(resources, removed),
      isResyncDue: state.isBehind,
    };
  }

  /** Nothing of the response is used, except that each of `rejected` has an effect until it is replaced or gone. */
  reject(
    { typeUrl, nonce }: Pick<AdsResponse, 'typeUrl' | 'nonce'>,
    error: string,
    rejected: readonly RejectedResource[],
  ): AdsRequest {
    const state = this.#state(typeUrl);
    for (const { name, key } of rejected) state.rejected.set(name, key);
    state.isBehind = true;
    state.isFirstDue = false;
    return requestOf(state, { nonce, error });
  }

  #state(typeUrl: string): TypeState {
    const state = this.#types.get(typeUrl);
    if (state === undefined) throw new Error(`not subscribed to ${typeUrl}`);
    return state;
  }

  #onDemand(): TypeState | undefined {
    return [...this.#types.values()].find(({ type }) => type.isOnDemand);
  }

  #openingOf(state: TypeState): readonly AdsRequest[] {
    state.isFirstDue = true;
    const { isOnDemand } = state.type;
    const names = isOnDemand ? ['*'] : [];
    const versions = state.names.versions();
    const isEchoed = echoBytes(versions) <= this.#maxEchoBytes;
    state.isUnechoed = !isEchoed && !isOnDemand;
    const echo = isEchoed ? versions : NO_VERSIONS;
    const initialVersions = isOnDemand ? withPending(echo, this.#pending) : echo;
    const first = requestOf(state, { isFirst: true, subscribe: names, unsubscribe: names, initialVersions });
    return isOnDemand && !isEchoed ? [first, ...this.#subscriptions(state)] : [first];
  }

  /** Names that do not fit into one request, as several; each name is answered with its resource or its removal. */
  #subscriptions(state: TypeState): readonly AdsRequest[] {
    const requests: AdsRequest[] = [];
    let subscribe: string[] = [];
    let bytes = 0;
    for (const name of state.names.names()) {
      subscribe.push(name);
      bytes += name.length + ENTRY_BYTES;
      if (bytes < this.#maxEchoBytes) continue;
      requests.push(requestOf(state, { subscribe }));
      subscribe = [];
      bytes = 0;
    }
    return subscribe.length === 0 ? requests : [...requests, requestOf(state, { subscribe })];
  }

  #release(resources: readonly AdsResource[], removed: readonly string[]): readonly string[] {
    if (this.#pending.size === 0) return [];
    const answered = [...resources.flatMap(({ name, aliases }) => [name, ...aliases]), ...removed];
    for (const key of answered) this.#unasked.delete(key);
    return answered.filter((key) => this.#pending.delete(key));
  }
}

function newState(type: AdsType): TypeState {
  const flags = { isFirstDue: false, isUnechoed: false, isBehind: false, isSynced: false };
  return { type, names: new AdsNames(), rejected: new Map(), ...flags };
}

function requestOf({ type }: TypeState, fields: Partial<AdsRequest>): AdsRequest {
  const nothing = { isFirst: false, subscribe: [], unsubscribe: [], initialVersions: NO_VERSIONS, nonce: '' };
  return { typeUrl: type.url, ...nothing, ...fields };
}

/** What we have, did not echo, and was not told again by the first response of the stream. */
function untold(
  { names, rejected, isFirstDue, isUnechoed }: TypeState,
  resources: readonly AdsResource[],
): readonly string[] {
  if (!isFirstDue || (rejected.size === 0 && !isUnechoed)) return [];
  const told = new Set(resources.map(({ name }) => name));
  const suspects = isUnechoed ? [...rejected.keys(), ...names.names()] : [...rejected.keys()];
  return suspects.filter((name) => !told.has(name));
}

/** A pending key must be answered, held or not: it goes with the version that nothing has. */
function withPending(versions: ReadonlyMap<string, string>, pending: ReadonlySet<string>): ReadonlyMap<string, string> {
  return pending.size === 0 ? versions : new Map([...versions, ...[...pending].map((key) => [key, ''] as const)]);
}

function echoBytes(versions: ReadonlyMap<string, string>): number {
  let bytes = 0;
  for (const [name, version] of versions) bytes += name.length + version.length + ENTRY_BYTES;
  return bytes;
}
