/** The answer to one CONNECT of ours, for whoever waits for it. */
import { MeshError } from '../base/errors.ts';
import type { ResponseHead } from '../wire/h2-head.ts';

export class H2Answer {
  #promise: PromiseWithResolvers<ResponseHead> | undefined;
  #head: ResponseHead | undefined;
  #failure: MeshError | undefined;
  #isThere = false;

  /** It has come; true also once nobody asks for it any more. */
  get isThere(): boolean {
    return this.#isThere;
  }

  /** Rejects when the stream ends before it. */
  get promise(): Promise<ResponseHead> {
    if (this.#promise === undefined) {
      this.#promise = Promise.withResolvers();
      // An owner that gave up may never look; that must not end the process.
      this.#promise.promise.catch(() => undefined);
      if (this.#head !== undefined) this.#promise.resolve(this.#head);
      else if (this.#failure !== undefined) this.#promise.reject(this.#failure);
    }
    return this.#promise.promise;
  }

  arrived(head: ResponseHead): void {
    this.#isThere = true;
    this.#head = head;
    this.#promise?.resolve(head);
  }

  /** Nothing when it has come. */
  fail(error = new MeshError('CV-TUNNEL-CLOSED', 'the stream ended before the answer')): void {
    if (this.#isThere) return;
    this.#failure = error;
    this.#promise?.reject(error);
  }

  /** Whoever waited has it. */
  forget(): void {
    this.#head = undefined;
    this.#promise = undefined;
  }
}
