/** Log lines of a thread that another thread writes: kept until they are taken, never dropped. */
import type { LogSink } from './log-sink.ts';

/** PIPE_BUF, as in `log-sink.ts`: whole lines per piece. */
const PIECE_CHARS = 4_096;
/** Lines that wait for the other thread, UTF-16 units; past it they go to the overflow. */
const MAX_PENDING = 4 * 1_048_576;

export class LogBatch implements LogSink {
  readonly #onNews: () => void;
  readonly #overflow: LogSink;
  #pieces: string[] = [];
  #pending = 0;

  /** `overflow` takes what came first when the other thread does not take it: a sink on the same destination. */
  constructor(onNews: () => void, overflow: LogSink) {
    this.#onNews = onNews;
    this.#overflow = overflow;
  }

  write(line: string): void {
    const last = this.#pieces.length - 1;
    const piece = this.#pieces[last];
    if (piece !== undefined && piece.length + line.length <= PIECE_CHARS) this.#pieces[last] = piece + line;
    else this.#pieces.push(line);
    this.#pending += line.length;
    if (this.#pending > MAX_PENDING) for (const whole of this.take()) this.#overflow.write(whole);
    else this.#onNews();
  }

  /** All lines so far, in pieces that a sink takes like one line. */
  take(): readonly string[] {
    const pieces = this.#pieces;
    this.#pieces = [];
    this.#pending = 0;
    return pieces;
  }
}
