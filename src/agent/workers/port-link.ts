/**
 * Typed calls between two threads, both ways. Calls and answers of one turn of the event loop travel in one message, as a
 * message costs some 15 µs and what is in it a few. Plain data only.
 */
import { setImmediate } from 'node:timers';
import { type ErrorFields, MeshError, toMeshError } from '../../base/errors.ts';
import type { ReasonCode } from '../../base/reasons.ts';
import { SlotMap } from '../../base/slot-map.ts';

/** What one side answers: name → function of one argument. */
export type Calls = Readonly<Record<string, (argument: never) => unknown>>;
type Argument<Call> = Call extends (argument: infer A) => unknown ? A : never;
type Answer<Call> = Call extends (argument: never) => infer R ? Awaited<R> : never;

interface Failure {
  readonly code: ReasonCode;
  readonly text: string;
  readonly fields: ErrorFields;
  /** Of a defect, which is logged where it is noticed. */
  readonly stack?: string;
}

export type Item =
  | readonly ['call', id: number, name: string, argument: unknown]
  | readonly ['answer', id: number, value: unknown]
  | readonly ['failure', id: number, failure: Failure]
  | readonly ['tell', name: string, argument: unknown];

export class PortLink<Mine extends Calls, Theirs extends Calls> {
  readonly #post: (items: readonly Item[]) => void;
  readonly #mine: Mine;
  /** Bounded by whoever waits for an answer. */
  readonly #waiting = new SlotMap<number, PromiseWithResolvers<unknown>>();
  #outbox: Item[] = [];
  #isFlushDue = false;
  #lastId = 0;
  #closed: MeshError | undefined;

  /** `post` hands a message to the port; the owner of the port gives what arrives to `receive`. */
  constructor(post: (items: readonly Item[]) => void, mine: Mine) {
    this.#post = post;
    this.#mine = mine;
  }

  /** Rejects with the error of the other side, or with that of `close`. */
  async call<Name extends keyof Theirs & string>(
    name: Name,
    argument: Argument<Theirs[Name]>,
  ): Promise<Answer<Theirs[Name]>> {
    if (this.#closed !== undefined) throw this.#closed;
    const id = ++this.#lastId;
    const answer = Promise.withResolvers<unknown>();
    this.#waiting.set(id, answer);
    this.#send(['call', id, name, argument]);
    return (await answer.promise) as Answer<Theirs[Name]>;
  }

  /**
   * No answer wanted. In a message of its own, after all that was sent before: whoever waits for an earlier answer goes on
   * before this is dealt with.
   */
  tell<Name extends keyof Theirs & string>(name: Name, argument: Argument<Theirs[Name]>): void {
    if (this.#closed !== undefined) return;
    this.#flush();
    this.#post([['tell', name, argument]]);
  }

  receive(items: readonly Item[]): void {
    for (const item of items) {
      switch (item[0]) {
        case 'call':
          void this.#serve(item[1], item[2], item[3]);
          break;
        case 'answer':
          this.#take(item[1])?.resolve(item[2]);
          break;
        case 'failure':
          this.#take(item[1])?.reject(revived(item[2]));
          break;
        case 'tell':
          this.#run(item[1], item[2]);
      }
    }
  }

  /** Nothing is sent any more; whoever waits is told `error`. Idempotent. */
  close(error: MeshError): void {
    this.#closed ??= error;
    for (const { reject } of this.#waiting.values()) reject(error);
    this.#waiting.clear();
  }

  async #serve(id: number, name: string, argument: unknown): Promise<void> {
    try {
      this.#send(['answer', id, await this.#run(name, argument)]);
    } catch (error) {
      this.#send(['failure', id, failureOf(toMeshError(error))]);
    }
  }

  #run(name: string, argument: unknown): unknown {
    const handler = this.#mine[name] as ((argument: unknown) => unknown) | undefined;
    if (handler === undefined) throw new MeshError('CV-BUG', `no such call between threads: ${name}`);
    return handler(argument);
  }

  #take(id: number): PromiseWithResolvers<unknown> | undefined {
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    return waiting;
  }

  #send(item: Item): void {
    this.#outbox.push(item);
    if (this.#isFlushDue) return;
    this.#isFlushDue = true;
    setImmediate(() => {
      this.#isFlushDue = false;
      this.#flush();
    });
  }

  #flush(): void {
    if (this.#outbox.length === 0 || this.#closed !== undefined) return;
    const items = this.#outbox;
    this.#outbox = [];
    this.#post(items);
  }
}

function failureOf({ code, message, fields, fault, cause, stack }: MeshError): Failure {
  const origin = cause instanceof Error ? cause.stack : stack;
  return { code, text: message, fields, ...(fault === 'bug' && origin !== undefined ? { stack: origin } : {}) };
}

function revived({ code, text, fields, stack }: Failure): MeshError {
  const error = new MeshError(code, text, fields);
  if (stack !== undefined) error.stack = stack;
  return error;
}
