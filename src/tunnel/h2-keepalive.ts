/** Keepalive PINGs of one session (datapath facts §1.12): 10 s after start or the last answer, 20 s to answer. */
import type { Clock } from '../base/clock.ts';

const PING_AFTER_MS = 10_000;
const ANSWER_WITHIN_MS = 20_000;
/** The last of it is waited for apart: after a pause of the whole process the answer is here, but not read yet. */
const LAST_LOOK_MS = 100;
/** Octets the reference uses, so that captures of both read alike (facts §1.11). */
const KEEPALIVE_PAYLOAD = Uint8Array.of(0x3b, 0x7c, 0xdb, 0x7a, 0x0b, 0x87, 0x16, 0xb4);
const DRAIN_PAYLOAD = Uint8Array.of(0x0b, 0x7b, 0xa2, 0xf0, 0x8b, 0x9b, 0xfe, 0x54);

export interface KeepaliveDeps {
  readonly clock: Clock;
  sendPing(payload: Uint8Array): void;
  /** The peer did not answer in time. */
  onDead(): void;
  /** The peer has seen the first GOAWAY: no stream it opened before is still on its way. */
  onDrainAnswered(): void;
}

export class H2Keepalive {
  readonly #deps: KeepaliveDeps;
  #timer: Disposable | undefined;
  #isAwaited = false;
  #isDraining = false;

  constructor(deps: KeepaliveDeps) {
    this.#deps = deps;
  }

  start(): void {
    this.#timer = this.#deps.clock.after(PING_AFTER_MS, () => {
      this.#isAwaited = true;
      this.#deps.sendPing(KEEPALIVE_PAYLOAD);
      this.#timer = this.#deps.clock.after(ANSWER_WITHIN_MS - LAST_LOOK_MS, () => {
        this.#timer = this.#deps.clock.after(LAST_LOOK_MS, () => this.#deps.onDead());
      });
    });
  }

  sendDrainPing(): void {
    this.#isDraining = true;
    this.#deps.sendPing(DRAIN_PAYLOAD);
  }

  /** False: nobody asked for this answer. */
  answered(payload: Uint8Array): boolean {
    if (this.#isAwaited && isEqual(payload, KEEPALIVE_PAYLOAD)) {
      this.#isAwaited = false;
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
}

function isEqual(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((octet, i) => octet === b[i]);
}
