/** Keepalive PINGs of one session: 10 s after start or the last answer, 20 s to answer. */
import { type Clock, deadline } from '../base/clock.ts';

const PING_AFTER_MS = 10_000;
const ANSWER_WITHIN_MS = 20_000;
/**
 * So often an answer is asked for, and waited for, while the kernel of the peer acknowledges what it gets: the process there then
 * has no CPU, or hangs. A peer that acknowledges nothing is asked once.
 */
const MOST_PINGS = 3;
/** Octets the reference uses, so that captures of both read alike. */
const KEEPALIVE_PAYLOAD = Uint8Array.of(0x3b, 0x7c, 0xdb, 0x7a, 0x0b, 0x87, 0x16, 0xb4);
const DRAIN_PAYLOAD = Uint8Array.of(0x0b, 0x7b, 0xa2, 0xf0, 0x8b, 0x9b, 0xfe, 0x54);

export interface KeepaliveDeps {
  readonly clock: Clock;
  sendPing(payload: Uint8Array): void;
  /** The machine of the peer acknowledged or sent something after `sinceMs` (monotonic); also when that cannot be told. */
  isHostAlive(sinceMs: number): boolean;
  /** The peer did not answer in time. */
  onDead(): void;
  /** The peer has seen the first GOAWAY: no stream it opened before is still on its way. */
  onDrainAnswered(): void;
}

export class H2Keepalive {
  readonly #deps: KeepaliveDeps;
  #timer: Disposable | undefined;
  /** Answers that are on their way. */
  #awaited = 0;
  #isHeard = false;
  #isDraining = false;

  constructor(deps: KeepaliveDeps) {
    this.#deps = deps;
  }

  start(): void {
    this.#timer = this.#deps.clock.after(PING_AFTER_MS, () => this.#ask(1));
  }

  /** The peer said something, whatever it was. */
  heard(): void {
    this.#isHeard = true;
  }

  sendDrainPing(): void {
    this.#isDraining = true;
    this.#deps.sendPing(DRAIN_PAYLOAD);
  }

  /** False: nobody asked for this answer. */
  answered(payload: Uint8Array): boolean {
    if (this.#awaited > 0 && isEqual(payload, KEEPALIVE_PAYLOAD)) {
      this.#awaited -= 1;
      this.#timer?.[Symbol.dispose]();
      this.start();
      return true;
    }
    if (!this.#isDraining || !isEqual(payload, DRAIN_PAYLOAD)) return false;
    this.#isDraining = false;
    this.#deps.onDrainAnswered();
    return true;
  }

  stop(): void {
    this.#timer?.[Symbol.dispose]();
    this.#timer = undefined;
  }

  #ask(times: number): void {
    const { clock } = this.#deps;
    const sinceMs = clock.monotonicMs();
    this.#awaited += 1;
    this.#isHeard = false;
    this.#deps.sendPing(KEEPALIVE_PAYLOAD);
    this.#timer = deadline(clock, ANSWER_WITHIN_MS, () => this.#unanswered(times, sinceMs));
  }

  /** Who sends something else is alive: the answer is behind it. */
  #unanswered(times: number, sinceMs: number): void {
    if (this.#isHeard) this.#ask(1);
    else if (times < MOST_PINGS && this.#deps.isHostAlive(sinceMs)) this.#ask(times + 1);
    else this.#deps.onDead();
  }
}

function isEqual(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((octet, i) => octet === b[i]);
}
