/** Requests that wait for a stream slot of the peer (SETTINGS_MAX_CONCURRENT_STREAMS), oldest first, bounded. */
import { MeshError } from '../base/errors.ts';
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
  /** In the order they came. */
  readonly #waiting = new Map<H2Stream, H2Request>();

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
    this.#waiting.set(stream, request);
  }

  shift(): Waiting | undefined {
    for (const [stream, request] of this.#waiting) {
      this.#waiting.delete(stream);
      return { stream, request };
    }
    return undefined;
  }

  remove(stream: H2Stream): void {
    this.#waiting.delete(stream);
  }

  failAll(error: MeshError): void {
    const streams = [...this.#waiting.keys()];
    this.#waiting.clear();
    for (const stream of streams) stream.fail(error);
  }
}
