/** A control plane of a few lines, a wire that loses what is in flight, and a client around `AdsState`: what properties run in. */
import assert from 'node:assert/strict';
import type { AdsResource } from '../../../src/model/ads-names.ts';
import { type AdsRequest, type AdsResponse, AdsState } from '../../../src/model/ads-state.ts';

export const ADDRESS = 'address';
export const POLICY = 'policy';
const BOTH = [ADDRESS, POLICY] as const;
type TypeUrl = (typeof BOTH)[number];

interface Held {
  readonly content: number;
  readonly isBad: boolean;
}

interface ServerResponse extends AdsResponse {
  readonly contents: ReadonlyMap<string, Held>;
}

/** Another name of every address. */
export function aliasOf(name: string): string {
  return `/${name}`;
}

/** istiod's rules, without debounce. */
class ModelServer {
  readonly store = { address: new Map<string, Held>(), policy: new Map<string, Held>() };
  readonly #changed = { address: new Set<string>(), policy: new Set<string>() };
  /** Names an on-demand client watches. */
  readonly watched = new Set<string>();
  readonly inFlight: ServerResponse[] = [];
  readonly #isOnDemand: boolean;
  isConnected = false;
  #nonce = 0;

  constructor(isOnDemand: boolean) {
    this.#isOnDemand = isOnDemand;
  }

  set(url: TypeUrl, name: string, held: Held | undefined): void {
    if (held === undefined) this.store[url].delete(name);
    else this.store[url].set(name, held);
    this.#changed[url].add(name);
  }

  drop(): void {
    this.isConnected = false;
    this.inFlight.length = 0;
    this.watched.clear();
  }

  push(): void {
    if (!this.isConnected) return;
    for (const url of BOTH) {
      const names = [...this.#changed[url]].filter((name) => url === POLICY || this.#isWatched(name));
      this.#changed[url].clear();
      if (names.length > 0) this.#respond(url, names);
    }
  }

  receive(request: AdsRequest): void {
    const url = request.typeUrl === ADDRESS ? ADDRESS : POLICY;
    if (request.nonce !== '') return;
    if (url === ADDRESS && this.#isOnDemand) this.#receiveDemand(request);
    else this.#receiveFirst(url, request.initialVersions);
  }

  #receiveFirst(url: TypeUrl, versions: ReadonlyMap<string, string>): void {
    this.#changed[url].clear();
    this.#respond(url, this.#differing(url, new Set([...this.store[url].keys(), ...versions.keys()]), versions));
  }

  #receiveDemand({ isFirst, subscribe, initialVersions }: AdsRequest): void {
    const names = new Set(isFirst ? initialVersions.keys() : subscribe);
    for (const name of names) this.watched.add(name);
    this.#respond(ADDRESS, this.#differing(ADDRESS, names, initialVersions));
  }

  #differing(url: TypeUrl, names: ReadonlySet<string>, versions: ReadonlyMap<string, string>): string[] {
    return [...names].filter((name) => {
      const held = this.store[url].get(canonical(name));
      return held === undefined || versionOf(url, held) === '' || versionOf(url, held) !== versions.get(name);
    });
  }

  #isWatched(name: string): boolean {
    return !this.#isOnDemand || this.watched.has(name) || this.watched.has(aliasOf(name));
  }

  #respond(url: TypeUrl, names: readonly string[]): void {
    const found = names.flatMap((asked) => {
      const name = canonical(asked);
      const held = this.store[url].get(name);
      return held === undefined ? [] : [{ asked, name, held }];
    });
    for (const { name } of found) if (this.#isOnDemand && url === ADDRESS) this.watched.add(name);
    const known = new Set(found.map(({ asked }) => asked));
    this.inFlight.push({
      typeUrl: url,
      nonce: String(++this.#nonce),
      resources: found.map(({ name, held }) => ({
        name,
        key: name,
        version: versionOf(url, held),
        aliases: this.#isOnDemand ? [aliasOf(name)] : [],
      })),
      contents: new Map(found.map(({ name, held }) => [name, held])),
      removed: names.filter((name) => !known.has(name)),
    });
  }
}

function canonical(name: string): string {
  return name.startsWith('/') ? name.slice(1) : name;
}

/** Policies have no versions. */
function versionOf(url: TypeUrl, { content, isBad }: Held): string {
  return url === POLICY ? '' : `${content}${isBad ? 'bad' : ''}`;
}

/** The client, checking on the way what must hold after every event. */
export class ModelWorld {
  readonly server: ModelServer;
  readonly state: AdsState;
  readonly applied = { address: new Map<string, number>(), policy: new Map<string, number>() };
  /** What must be echoed: name → version as last accepted. */
  readonly #accepted = { address: new Map<string, string>(), policy: new Map<string, string>() };
  readonly #failClosed = new Set<string>();
  readonly #maxEchoBytes: number;
  #isOpen = false;
  #isResyncDue = false;

  constructor(isOnDemand: boolean, maxEchoBytes = Infinity) {
    this.server = new ModelServer(isOnDemand);
    this.#maxEchoBytes = maxEchoBytes;
    this.state = new AdsState(
      [
        { url: ADDRESS, isOnDemand },
        { url: POLICY, isOnDemand: false },
      ],
      maxEchoBytes,
    );
  }

  open(): void {
    if (this.#isOpen) return;
    this.#isOpen = true;
    this.#isResyncDue = false;
    this.server.isConnected = true;
    const requests = this.state.opened();
    assert.deepEqual([...new Set(requests.map(({ typeUrl }) => typeUrl))], [ADDRESS, POLICY]);
    for (const request of requests) {
      this.#checkEcho(request);
      this.server.receive(request);
    }
  }

  close(): void {
    this.#isOpen = false;
    this.server.drop();
  }

  demand(key: string): void {
    this.state.demand(key);
    const request = this.#isOpen ? this.state.question() : undefined;
    if (request === undefined) return;
    assert.deepEqual(
      { ...request, initialVersions: [...request.initialVersions] },
      {
        typeUrl: ADDRESS,
        isFirst: false,
        subscribe: [key],
        unsubscribe: [],
        initialVersions: [],
        nonce: '',
      },
    );
    this.server.receive(request);
  }

  deliver(): void {
    const response = this.server.inFlight.shift();
    if (response === undefined) return;
    const bad = response.resources.filter(({ name }) => response.contents.get(name)?.isBad === true);
    if (bad.length > 0) this.#reject(response, bad);
    else this.#accept(response);
  }

  /** Lets everything arrive, and follows the advice to open another stream, until nothing is left to do. */
  settle(): void {
    for (let streams = 0; streams < 4; streams += 1) {
      this.open();
      this.server.push();
      while (this.server.inFlight.length > 0) this.deliver();
      if (!this.#isResyncDue) return;
      this.close();
    }
    assert.fail('the client asks for one stream after another');
  }

  #reject(response: ServerResponse, bad: readonly AdsResource[]): void {
    const isPolicy = response.typeUrl === POLICY;
    const unheard = isPolicy ? bad.filter(({ name }) => !this.applied.policy.has(name)) : [];
    for (const { name } of unheard) this.#failClosed.add(name);
    const request = this.state.reject(response, 'bad', unheard);
    assert.deepEqual([request.nonce, request.error, request.isFirst], [response.nonce, 'bad', false]);
    this.server.receive(request);
  }

  #accept(response: ServerResponse): void {
    const url = response.typeUrl === ADDRESS ? ADDRESS : POLICY;
    const { request, removedKeys, released, isResyncDue } = this.state.accept(response);
    for (const { name, version } of response.resources) {
      const content = response.contents.get(name)?.content;
      assert(content !== undefined);
      if (!removedKeys.has(name)) this.applied[url].set(name, content);
      this.#accepted[url].set(name, version);
      this.#failClosed.delete(name);
    }
    for (const key of removedKeys) {
      this.applied[url].delete(key);
      if (url === POLICY) this.#failClosed.delete(key);
    }
    for (const key of [...this.#accepted[url].keys()]) if (!this.applied[url].has(key)) this.#accepted[url].delete(key);
    for (const key of released) assert(!this.state.pending.has(key));
    assert.deepEqual([request.nonce, request.error], [response.nonce, undefined]);
    this.#isResyncDue ||= isResyncDue;
    this.server.receive(request);
  }

  /** Exactly what was accepted, and the pending keys; or nothing when that is too much. */
  #checkEcho({ typeUrl, isFirst, initialVersions }: AdsRequest): void {
    if (!isFirst) return;
    const url = typeUrl === ADDRESS ? ADDRESS : POLICY;
    const pending = url === ADDRESS ? [...this.state.pending].map((key) => [key, ''] as const) : [];
    const isLeftOut = initialVersions.size === pending.length && this.#maxEchoBytes < Infinity;
    const echo = isLeftOut ? [] : this.#accepted[url];
    assert.deepEqual(new Map(initialVersions), new Map([...echo, ...pending]));
  }

  /** Policies that refuse everybody, because nobody could read them. */
  get failClosed(): ReadonlySet<string> {
    return this.#failClosed;
  }
}
