/**
 * What one stream wants of one type, and what it is to be told next. Pure but for the store it reads: requests and
 * changed names in, responses out.
 */
import { create } from '@bufbuild/protobuf';
import { MeshError } from '../../base/errors.ts';
import {
  type DeltaDiscoveryRequest,
  type DeltaDiscoveryResponse,
  DeltaDiscoveryResponseSchema,
  type Resource,
  ResourceSchema,
} from '../../wire/pb/discovery_pb.ts';
import type { ResourceStore, StoredResource } from './resource-store.ts';

/** Names one stream may ask for one by one. */
const MAX_KEYS = 100_000;
const WILDCARD = '*';

export interface SubscriptionOptions {
  readonly typeUrl: string;
  readonly store: ResourceStore;
  /** Client's node: what runs there goes to a client that asks by name without being asked for. */
  readonly nodeName: string;
  readonly nextNonce: () => string;
}

/** What a request said about the response before. */
export type Answer = { readonly kind: 'ack' | 'stale' } | { readonly kind: 'nack'; readonly reason: string };

export class Subscription {
  readonly #options: SubscriptionOptions;
  readonly #isWildcard: boolean;
  /** Name → version that the client said it holds; forgotten once the first response is made. */
  #echoed: ReadonlyMap<string, string> | undefined;
  /** Asked for by name, alias or service. Empty for a wildcard. */
  readonly #keys = new Set<string>();
  readonly #unanswered = new Set<string>();
  /** What a client that asks by name was given. */
  readonly #given = new Set<string>();
  readonly #changed = new Set<string>();
  #nonce: string | undefined;

  /** From the first request of the type on this stream. */
  constructor(first: DeltaDiscoveryRequest, options: SubscriptionOptions) {
    this.#options = options;
    const { resourceNamesSubscribe: subscribe, resourceNamesUnsubscribe: unsubscribe } = first;
    const asksForAll = subscribe.length === 0 || subscribe.includes(WILDCARD);
    this.#isWildcard = asksForAll && !unsubscribe.includes(WILDCARD);
    this.#echoed = new Map(Object.entries(first.initialResourceVersions));
    this.#want([...subscribe, ...(this.#isWildcard ? [] : this.#echoed.keys())]);
  }

  /** Any request but the first. */
  receive(request: DeltaDiscoveryRequest): Answer | undefined {
    this.#want(request.resourceNamesSubscribe);
    for (const key of request.resourceNamesUnsubscribe) this.#keys.delete(key);
    if (request.responseNonce === '') return undefined;
    if (request.responseNonce !== this.#nonce) return { kind: 'stale' };
    const { errorDetail } = request;
    return errorDetail === undefined ? { kind: 'ack' } : { kind: 'nack', reason: errorDetail.message };
  }

  /** Some of them may be of no interest here; that is found out when a response is made. */
  changed(names: readonly string[]): void {
    for (const name of names) this.#changed.add(name);
  }

  /** The next response, or `undefined` when there is nothing to tell. The first one is always made, even empty. */
  next(): DeltaDiscoveryResponse | undefined {
    const isFirst = this.#nonce === undefined;
    if (!isFirst && this.#unanswered.size === 0 && this.#changed.size === 0) return undefined;
    const message = new Draft(this.#options.typeUrl);
    if (this.#isWildcard) this.#draftAll(message);
    else this.#draftAsked(message, isFirst);
    this.#echoed = undefined;
    this.#unanswered.clear();
    if (!isFirst && message.isEmpty) return undefined;
    this.#nonce = this.#options.nextNonce();
    return message.response(this.#nonce);
  }

  #want(keys: readonly string[]): void {
    if (this.#isWildcard) return;
    for (const key of keys) {
      if (key === WILDCARD) continue;
      if (this.#keys.size >= MAX_KEYS && !this.#keys.has(key)) {
        throw new MeshError('CV-LIMIT', `a stream may ask for ${MAX_KEYS} names`);
      }
      this.#keys.add(key);
      this.#unanswered.add(key);
    }
  }

  #draftAll(message: Draft): void {
    const { store, typeUrl } = this.#options;
    const echoed = this.#echoed;
    if (echoed === undefined) {
      for (const name of this.#changed) {
        const resource = store.get(typeUrl, name);
        if (resource === undefined) message.remove(name);
        else message.add(resource);
      }
    } else {
      for (const resource of store.all(typeUrl))
        if (echoed.get(resource.name) !== resource.version) message.add(resource);
      for (const name of echoed.keys()) if (store.get(typeUrl, name) === undefined) message.remove(name);
    }
    this.#changed.clear();
  }

  #draftAsked(message: Draft, isFirst: boolean): void {
    const { store, typeUrl, nodeName } = this.#options;
    for (const key of this.#unanswered) this.#draftKey(message, key);
    for (const name of this.#changed) {
      const resource = store.get(typeUrl, name);
      if (resource !== undefined && this.#isWanted(resource)) this.#give(message, resource);
      else if (resource === undefined && (this.#given.delete(name) || this.#keys.has(name))) message.remove(name);
    }
    this.#changed.clear();
    // The answer to "nothing yet" is empty; what runs on the client's node follows by itself.
    if (isFirst) for (const name of store.onNode(typeUrl, nodeName)) this.#changed.add(name);
  }

  /** The client waits for a resource of exactly this name, or for its removal. */
  #draftKey(message: Draft, key: string): void {
    const { store, typeUrl } = this.#options;
    const found = store.find(typeUrl, key);
    if (found.length === 0) {
      message.remove(key);
      return;
    }
    const version = this.#echoed?.get(key);
    for (const resource of found) {
      if (version !== undefined && version === resource.version) this.#given.add(resource.name);
      else this.#give(message, resource);
    }
    const [first] = found;
    const isAlias = first !== undefined && found.every(({ name }) => name !== key);
    // Clients of the reference look at names only, never at aliases: they are given one more copy, named as they asked.
    if (isAlias && version !== first.version) message.add(first, key);
  }

  #give(message: Draft, resource: StoredResource): void {
    this.#given.add(resource.name);
    message.add(
      resource,
      resource.name,
      resource.aliases.filter((alias) => this.#keys.has(alias)),
    );
  }

  #isWanted({ name, aliases, memberOf, node }: StoredResource): boolean {
    if (this.#keys.has(name) || this.#given.has(name)) return true;
    if (node !== '' && node === this.#options.nodeName) return true;
    return aliases.some((alias) => this.#keys.has(alias)) || memberOf.some((service) => this.#isWatched(service));
  }

  #isWatched(service: string): boolean {
    return this.#keys.has(service) || this.#given.has(service);
  }
}

/** A response in the making. */
class Draft {
  readonly #resources = new Map<string, Resource>();
  readonly #removed = new Set<string>();
  readonly #typeUrl: string;

  constructor(typeUrl: string) {
    this.#typeUrl = typeUrl;
  }

  get isEmpty(): boolean {
    return this.#resources.size === 0 && this.#removed.size === 0;
  }

  add({ bytes, version, name: own }: StoredResource, name = own, aliases: readonly string[] = []): void {
    const resource = { typeUrl: this.#typeUrl, value: bytes };
    this.#resources.set(name, create(ResourceSchema, { name, version, resource, aliases: [...aliases] }));
  }

  remove(name: string): void {
    this.#removed.add(name);
  }

  response(nonce: string): DeltaDiscoveryResponse {
    return create(DeltaDiscoveryResponseSchema, {
      typeUrl: this.#typeUrl,
      nonce,
      resources: [...this.#resources.values()],
      removedResources: [...this.#removed],
    });
  }
}
