/** Requests that wait for a stream slot of the peer (SETTINGS_MAX_CONCURRENT_STREAMS), oldest first, bounded. */
import { MeshError } from '../base/errors.ts';
import { SlotMap } from '../base/slot-map.ts';
import type { H2Stream } from './h2-stream.ts';
import type { OutgoingHeaders } from './h2-stream-host.ts';

export interface H2Request {
  readonly authority: string;
  readonly headers?: OutgoingHeaders;
}

interface Waiting {
  readonly stream: H2Stream;
  readonly request: H2Request;
}

export class H2RequestQueue {
  readonly #limit: number;
  /** In the order they came, by the place of their stream. */
  readonly #waiting = new SlotMap<number, Waiting>();
  #lastPlace = 0;

  constructor(limit: number) {
    this.#limit = limit;
  }

  get length(): number {
    return this.#waiting.size;
  }

  push(stream: H2Stream, request: H2Request): void {
    if (this.#waiting.size >= this.#limit) {
      const limit = this.#limit;
      throw new MeshError('CV-LIMIT', 'too many requests wait for a stream of this tunnel', { limit });
    }
    stream.place = ++this.#lastPlace;
    this.#waiting.set(stream.place, { stream, request });
  }

  shift(): Waiting | undefined {
    const [next] = this.#waiting.values();
    if (next !== undefined) this.#waiting.delete(next.stream.place);
    return next;
  }

  remove(stream: H2Stream): void {
    this.#waiting.delete(stream.place);
  }

  failAll(error: MeshError): void {
    const waiting = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const { stream } of waiting) stream.fail(error);
  }
}
