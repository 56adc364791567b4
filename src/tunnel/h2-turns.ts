/** Streams that wait for their turn to send, in the order they came; each is in it once, and leaves it from anywhere at once. */
import type { SendingStream } from './h2-sender.ts';

/** Linked through the streams themselves: a session may have 65,535 of them, and a turn is taken for each 16 KiB. */
export class H2Turns {
  #first: SendingStream | undefined;
  #last: SendingStream | undefined;

  get first(): SendingStream | undefined {
    return this.#first;
  }

  /** At the end, unless it waits already. */
  add(stream: SendingStream): void {
    if (stream.isReady) return;
    stream.isReady = true;
    stream.turnBefore = this.#last;
    if (this.#last === undefined) this.#first = stream;
    else this.#last.turnAfter = stream;
    this.#last = stream;
  }

  /** Nothing when it does not wait. */
  remove(stream: SendingStream): void {
    if (!stream.isReady) return;
    stream.isReady = false;
    const { turnBefore, turnAfter } = stream;
    stream.turnBefore = undefined;
    stream.turnAfter = undefined;
    if (turnBefore === undefined) this.#first = turnAfter;
    else turnBefore.turnAfter = turnAfter;
    if (turnAfter === undefined) this.#last = turnBefore;
    else turnAfter.turnBefore = turnBefore;
  }
}
