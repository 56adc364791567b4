/** What one workload uses of the event loop of this thread, and what of it waits for its next turn. */
import { MeshError } from '../base/errors.ts';
import { TurnUser } from '../base/fair-turns.ts';
import type { LoopShares } from './loop-shares.ts';

/** A reader of a socket that can be stopped between two turns. */
export interface TurnSource {
  /** The turn in which it was last served. */
  turn: number;
  /** Between `hold` and `release`. */
  readonly isHeld: boolean;
  /** Reads no more until `release`. */
  hold(): void;
  /** Goes on, with what it read after it was told to stop. */
  release(): void;
}

/** What a workload may use; see `model/budget.ts`. */
export interface ShareLimits {
  readonly bufferedBytes: number;
  readonly loopShare: number;
}

/** Longest that something new waits for a turn, of the time in which the loop turned. */
const MAX_WAIT_MS = 5_000;
/** New connections and handshakes that wait for a turn; beyond, one more is refused. About 4 KiB each. */
const MAX_WAITING = 2_048;

/** A new connection has some four reads of its own until it ends; as many are for those that last. */
const SOURCES_PER_NEW = 8;

/** Something new that waits. */
interface Waiting {
  readonly go: () => void;
  readonly refuse: (error: MeshError) => void;
  readonly sinceMs: number;
}

export class LoopShare {
  readonly user = new TurnUser();
  /** Time on the loop, ms. */
  busyMs = 0;
  /** Connections that began here, refused ones too. */
  connections = 0;
  handshakes = 0;
  /** How often it had to wait for its next turn. */
  holds = 0;
  /** To the application, and from it. */
  bytesIn = 0;
  bytesOut = 0;
  /** Taken from one side and not given to the other yet. */
  bufferedBytes = 0;
  /** It has used more than it may, and sleeps until it has earned that. Changed by LoopShares only. */
  isCapped = false;
  /** @internal LoopShares only: what it may use yet, ms, in all and for what it begins anew, and when that was reckoned. */
  allowanceMs = Number.POSITIVE_INFINITY;
  allowedAtMs = 0;
  beginningMs = Number.POSITIVE_INFINITY;
  beganAtMs = 0;
  readonly #loop: LoopShares;
  /** Served in this turn: what a hold stops. */
  #served: TurnSource[] = [];
  #servedTurn = -1;
  /** Stopped sources, what has begun and goes on, and new work, each in the order they came. */
  #stopped: TurnSource[] = [];
  #begun: Waiting[] = [];
  #waiting: Waiting[] = [];
  #sourcesSinceNew = 0;
  #isClosed = false;
  #limits: ShareLimits = { bufferedBytes: Number.POSITIVE_INFINITY, loopShare: 1 };

  /** @internal `LoopShares.open` makes them. */
  constructor(loop: LoopShares) {
    this.#loop = loop;
  }

  /** Its turn is over, or it has used its share of time. */
  get isHeld(): boolean {
    return this.user.isHeld || this.isCapped;
  }

  /** Buffers are full: nothing more than needed is taken from anybody. */
  get isCrowded(): boolean {
    return this.bufferedBytes >= this.#limits.bufferedBytes;
  }

  get loopShare(): number {
    return this.#limits.loopShare;
  }

  limit(limits: ShareLimits): void {
    this.#limits = limits;
  }

  /** From here on the loop works for this workload; see `LoopShares.enter`. */
  enter(nativeMs = 0): void {
    this.#loop.enter(this.#isClosed ? undefined : this, nativeMs);
  }

  /** The callback that has entered returns: what follows may be somebody else's. */
  leave(): void {
    this.#loop.leave();
  }

  /** Something new begins, which will cost about so much: see `LoopShares.begins`. */
  begins(ms: number): number {
    return this.#isClosed ? 0 : this.#loop.begins(this, ms);
  }

  /** Node will work so long for this workload before it calls us. */
  expect(ms: number): void {
    if (!this.#isClosed) this.#loop.expect(this, ms);
  }

  /** As `enter`, for what `source` has read. False: it is not its turn, so that it should keep what it read. */
  enterFor(source: TurnSource, nativeMs: number): boolean {
    this.enter(nativeMs);
    const { turn } = this.#loop;
    if (this.isHeld) {
      this.#stop(source);
      return false;
    }
    if (source.turn === turn) return true;
    source.turn = turn;
    if (this.#servedTurn !== turn) {
      this.#servedTurn = turn;
      this.#served = [];
    }
    this.#served.push(source);
    return true;
  }

  /** Resolves when something new may begin; `undefined`: at once. Rejects with `CV-BUDGET-QUEUE` when too much waits already. */
  turn(): Promise<void> | undefined {
    return this.#turnIn(this.#waiting);
  }

  /** The same for what has begun and goes on, before anything new: answers for many come in one message of another thread. */
  turnAgain(): Promise<void> | undefined {
    return this.#turnIn(this.#begun);
  }

  #turnIn(queue: Waiting[]): Promise<void> | undefined {
    this.enter();
    if (!this.isHeld && queue.length === 0) return undefined;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    if (queue.length >= MAX_WAITING) {
      reject(new MeshError('CV-BUDGET-QUEUE', `${MAX_WAITING} new connections of this workload wait for their turn`));
      return promise;
    }
    queue.push({ go: resolve, refuse: reject, sinceMs: this.#loop.turnedMs });
    return promise;
  }

  /** @internal LoopShares only: its turn is over. */
  hold(): void {
    this.holds += 1;
    const served = this.#served;
    this.#served = [];
    if (this.#servedTurn === this.#loop.turn) for (const source of served) this.#stop(source);
  }

  /**
   * @internal LoopShares only: its next turn begins. One piece of work after the other, until it is over again. What is there
   * goes first, and something new after so many sources: so it neither starves nor crowds out what has begun.
   */
  goOn(): void {
    while (!this.isHeld) {
      const isNewDue = this.#sourcesSinceNew >= SOURCES_PER_NEW && this.#begun.length + this.#waiting.length > 0;
      const source = isNewDue ? undefined : this.#stopped.shift();
      if (source !== undefined) {
        this.#sourcesSinceNew += 1;
        source.release();
        this.enter();
        continue;
      }
      const next = this.#begun.shift() ?? this.#waiting.shift();
      if (next === undefined) return;
      this.#sourcesSinceNew = 0;
      if (this.#begin(next)) return;
    }
  }

  /** True when `goOn` is called again. */
  #begin({ go, refuse, sinceMs }: Waiting): boolean {
    if (this.#loop.turnedMs - sinceMs > MAX_WAIT_MS) {
      refuse(new MeshError('CV-BUDGET-QUEUE', `its turn did not come in ${MAX_WAIT_MS / 1_000} s`));
      return false;
    }
    go();
    // After whoever waited has done its work; what that costs may end the turn.
    queueMicrotask(() => {
      this.enter();
      this.goOn();
    });
    return true;
  }

  /** The workload is gone. Whoever waits is let go: each finds out by itself. */
  close(): void {
    this.#isClosed = true;
    this.#loop.closed(this);
    for (const { go } of [...this.#begun.splice(0), ...this.#waiting.splice(0)]) go();
    for (const source of this.#stopped.splice(0)) source.release();
  }

  #stop(source: TurnSource): void {
    if (source.isHeld) return;
    source.hold();
    this.#stopped.push(source);
  }
}
