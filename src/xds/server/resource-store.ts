/** What a control plane serves, by type and name, and who is to be told what changed. */
import { hash } from 'node:crypto';
import { addTo, takeFrom } from '../../base/multimap.ts';

export interface ServedResource {
  /** As it is told to clients; what else it can be asked for by is in `aliases`. */
  readonly name: string;
  /** The message that `Resource.resource` carries. */
  readonly bytes: Uint8Array;
  /** What else it can be asked for by: `network/ip` of each address, `network/ip/length` of a range. */
  readonly aliases: readonly string[];
  /** Names of services it is an endpoint of: who asks for one of them is given it too. */
  readonly memberOf: readonly string[];
  /** Node it runs on; empty = none. */
  readonly node: string;
}

export interface StoredResource extends ServedResource {
  /** Of the content: equal means the same bytes. */
  readonly version: string;
}

export interface StoreUpdate {
  readonly upserts: readonly ServedResource[];
  /** Names; unknown ones are no error. */
  readonly removals: readonly string[];
}

export type StoreListener = (typeUrl: string, names: readonly string[]) => void;

/** The resources of one type. */
class Shelf {
  readonly byName = new Map<string, StoredResource>();
  readonly byAlias = new Map<string, Set<string>>();
  readonly byService = new Map<string, Set<string>>();
  readonly byNode = new Map<string, Set<string>>();

  /** False when nothing changed. */
  put(resource: ServedResource): boolean {
    const version = hash('sha1', resource.bytes, 'hex').slice(0, VERSION_CHARS);
    if (this.byName.get(resource.name)?.version === version) return false;
    this.remove(resource.name);
    this.byName.set(resource.name, { ...resource, version });
    this.#index(resource, addTo);
    return true;
  }

  remove(name: string): boolean {
    const resource = this.byName.get(name);
    if (resource === undefined) return false;
    this.byName.delete(name);
    this.#index(resource, takeFrom);
    return true;
  }

  #index(resource: ServedResource, change: typeof addTo<string, string>): void {
    for (const alias of resource.aliases) change(this.byAlias, alias, resource.name);
    for (const service of resource.memberOf) change(this.byService, service, resource.name);
    if (resource.node !== '') change(this.byNode, resource.node, resource.name);
  }
}

/** Enough that two versions of one resource are never equal by accident. */
const VERSION_CHARS = 16;

export class ResourceStore {
  readonly #shelves: ReadonlyMap<string, Shelf>;
  readonly #listeners = new Set<StoreListener>();

  /** Serves exactly these types, and pushes changes of several in this order. */
  constructor(typeUrls: readonly string[]) {
    this.#shelves = new Map(typeUrls.map((typeUrl) => [typeUrl, new Shelf()]));
  }

  get typeUrls(): readonly string[] {
    return [...this.#shelves.keys()];
  }

  /** Listeners are told once, of what really changed. Throws on a type that is not served. */
  apply(typeUrl: string, { upserts, removals }: StoreUpdate): void {
    const shelf = this.#shelf(typeUrl);
    const changed = [
      ...upserts.filter((resource) => shelf.put(resource)).map(({ name }) => name),
      ...removals.filter((name) => shelf.remove(name)),
    ];
    if (changed.length === 0) return;
    for (const listener of [...this.#listeners]) listener(typeUrl, changed);
  }

  get(typeUrl: string, name: string): StoredResource | undefined {
    return this.#shelf(typeUrl).byName.get(name);
  }

  all(typeUrl: string): Iterable<StoredResource> {
    return this.#shelf(typeUrl).byName.values();
  }

  size(typeUrl: string): number {
    return this.#shelf(typeUrl).byName.size;
  }

  /** The resource with this name or alias, and the endpoints of what was found. */
  find(typeUrl: string, key: string): readonly StoredResource[] {
    const { byName, byAlias, byService } = this.#shelf(typeUrl);
    const names = new Set([key, ...(byAlias.get(key) ?? [])]);
    for (const name of [...names]) for (const member of byService.get(name) ?? []) names.add(member);
    return [...names].flatMap((name) => byName.get(name) ?? []);
  }

  onNode(typeUrl: string, node: string): ReadonlySet<string> {
    return this.#shelf(typeUrl).byNode.get(node) ?? NOBODY;
  }

  subscribe(listener: StoreListener): Disposable {
    this.#listeners.add(listener);
    return { [Symbol.dispose]: () => this.#listeners.delete(listener) };
  }

  #shelf(typeUrl: string): Shelf {
    const shelf = this.#shelves.get(typeUrl);
    if (shelf === undefined) throw new Error(`${typeUrl} is not served`);
    return shelf;
  }
}

const NOBODY: ReadonlySet<string> = new Set();
