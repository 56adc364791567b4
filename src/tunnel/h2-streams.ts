/** The streams of one session by id, and what is known of ids that are no longer open (RFC 9113 §5.1, §5.1.1). */
import { SlotMap } from '../base/slot-map.ts';
import { MAX_31_BITS } from '../wire/h2-protocol.ts';
import type { H2Role } from './h2-settings.ts';
import type { H2Stream } from './h2-stream.ts';

/**
 * Streams reset by us whose late frames we still expect without complaint. All of a session may be reset at once, by an
 * application that dies, and their slots be taken again before the peer has heard of it.
 */
const REMEMBERED_RESETS = 1_024;

export class H2Streams {
  readonly #open = new SlotMap<number, H2Stream>();
  readonly #isClient: boolean;
  #nextId: number;
  /** Highest id the peer has opened. */
  #peerId = 0;
  #resetIds: number[] = [];
  #oldestReset = 0;

  constructor(role: H2Role) {
    this.#isClient = role === 'client';
    this.#nextId = this.#isClient ? 1 : 2;
  }

  get size(): number {
    return this.#open.size;
  }

  get highestPeerId(): number {
    return this.#peerId;
  }

  get hasIdsLeft(): boolean {
    return this.#nextId <= MAX_31_BITS;
  }

  get(id: number): H2Stream | undefined {
    return this.#open.get(id);
  }

  all(): Iterable<H2Stream> {
    return this.#open.values();
  }

  /** Of ours: the next id. */
  start(stream: H2Stream): number {
    const id = this.#nextId;
    this.#nextId += 2;
    this.#open.set(id, stream);
    stream.started(id);
    return id;
  }

  /** The peer may only open odd ids as a client, none as a server (we refuse push), each higher than the last. */
  mayPeerOpen(id: number): boolean {
    return !this.#isClient && id % 2 === 1 && id > this.#peerId;
  }

  /** The peer used `id`, whether we accept the stream or refuse it. */
  seen(id: number): void {
    this.#peerId = id;
  }

  accept(id: number, stream: H2Stream): void {
    this.#open.set(id, stream);
    stream.started(id);
  }

  /** Nobody has opened it yet: most frames on it are a connection error. */
  isIdle(id: number): boolean {
    const isOurs = id % 2 === (this.#isClient ? 1 : 0);
    return isOurs ? id >= this.#nextId : id > this.#peerId;
  }

  remove(id: number): void {
    this.#open.delete(id);
  }

  rememberReset(id: number): void {
    this.#resetIds[this.#oldestReset] = id;
    this.#oldestReset = (this.#oldestReset + 1) % REMEMBERED_RESETS;
  }

  wasReset(id: number): boolean {
    return this.#resetIds.includes(id);
  }

  /** Empties the map and gives what was in it. */
  takeAll(): H2Stream[] {
    const streams = [...this.#open.values()];
    this.#open.clear();
    return streams;
  }
}
