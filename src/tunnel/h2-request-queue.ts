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
  readonly #waiting: Waiting[] = [];

  constructor(limit: number) {
    this.#limit = limit;
  }

  get length(): number {
    return this.#waiting.length;
  }

  push(stream: H2Stream, request: H2Request): void {
    if (this.#waiting.length >= this.#limit) {
      const limit = this.#limit;
      throw new MeshError('CV-LIMIT', 'too many requests wait for a stream of this tunnel', { limit });
    }
    this.#waiting.push({ stream, request });
  }

  shift(): Waiting | undefined {
    return this.#waiting.shift();
  }

  remove(stream: H2Stream): void {
    const at = this.#waiting.findIndex((waiting) => waiting.stream === stream);
    if (at >= 0) this.#waiting.splice(at, 1);
  }

  failAll(error: MeshError): void {
    for (const { stream } of this.#waiting.splice(0)) stream.fail(error);
  }
}
