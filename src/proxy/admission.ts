/**
 * May something new of a pod begin? Over its budget it is slowed first: it waits, in the order it came, for what it lacks.
 * What has waited too long, or finds too many waiting, is refused.
 */
import type { Clock } from '../base/clock.ts';
import { MeshError } from '../base/errors.ts';
import { TokenBucket } from '../base/token-bucket.ts';
import type { Budget } from '../model/budget.ts';
import type { LoopShare } from '../tunnel/loop-share.ts';

export type Admitted = 'connection' | 'handshake';

/** How long something new is slowed before it is refused. Less than what clients wait for a connect. */
export const MAX_DELAY_MS = 1_000;
/** Those that wait at once; about 4 KiB each. */
const MAX_DELAYED = 1_024;
/** How often is looked whether one of them may begin. Only while some wait. */
const LOOK_MS = 20;

interface Delayed {
  readonly kind: Admitted;
  readonly untilMs: number;
  readonly go: PromiseWithResolvers<void>;
}

export interface AdmissionDeps {
  readonly clock: Clock;
  readonly share: LoopShare;
  /** Connections open or on their way, those that wait here included. */
  readonly held: () => number;
}

export class Admission {
  readonly #deps: AdmissionDeps;
  #budget: Budget;
  #tokens: TokenBucket;
  #delayed: Delayed[] = [];
  #isLookDue = false;

  constructor(budget: Budget, deps: AdmissionDeps) {
    this.#deps = deps;
    this.#budget = budget;
    this.#tokens = this.#bucket();
    deps.share.limit(budget);
  }

  get budget(): Budget {
    return this.#budget;
  }

  /** Holds from now on; what is open stays. */
  set budget(budget: Budget) {
    const isNewRate = budget.handshakesPerSecond !== this.#budget.handshakesPerSecond;
    this.#budget = budget;
    if (isNewRate) this.#tokens = this.#bucket();
    this.#deps.share.limit(budget);
  }

  /** Within the budget, and its turn. `undefined`: at once. Rejects with `CV-BUDGET-…`. */
  enter(kind: Admitted): Promise<void> | undefined {
    const isBehind = this.#delayed.some((delayed) => delayed.kind === kind);
    if (isBehind || this.#lack(kind) !== undefined) return this.#delay(kind);
    this.#spend(kind);
    return this.#deps.share.turn();
  }

  async #delay(kind: Admitted): Promise<void> {
    const lack = this.#lack(kind);
    if (this.#delayed.length >= MAX_DELAYED) throw lack ?? tooManyWait();
    const delayed = { kind, untilMs: this.#deps.clock.monotonicMs() + MAX_DELAY_MS, go: Promise.withResolvers<void>() };
    this.#delayed.push(delayed);
    this.#lookLater();
    await delayed.go.promise;
    await this.#deps.share.turn();
  }

  #lookLater(): void {
    if (this.#isLookDue) return;
    this.#isLookDue = true;
    this.#deps.clock.after(LOOK_MS, () => {
      this.#isLookDue = false;
      this.#lookNow();
      if (this.#delayed.length > 0) this.#lookLater();
    });
  }

  /** One kind that lacks something does not hold up the other. */
  #lookNow(): void {
    const nowMs = this.#deps.clock.monotonicMs();
    const waiting = this.#delayed;
    this.#delayed = [];
    const lacking = new Map<Admitted, MeshError>();
    for (const [at, delayed] of waiting.entries()) {
      const { kind, untilMs, go } = delayed;
      // Those behind it count as held.
      const lack = lacking.get(kind) ?? this.#lack(kind, waiting.length - at + this.#delayed.length);
      if (lack === undefined) {
        this.#spend(kind);
        go.resolve();
      } else if (untilMs <= nowMs) {
        go.reject(lack);
      } else {
        lacking.set(kind, lack);
        this.#delayed.push(delayed);
      }
    }
  }

  #spend(kind: Admitted): void {
    if (kind === 'handshake') this.#tokens.take(this.#deps.clock.monotonicMs());
  }

  /** Why it may not begin now. */
  #lack(kind: Admitted, waiting = this.#delayed.length): MeshError | undefined {
    const { connections, bufferedBytes, handshakesPerSecond } = this.#budget;
    const { clock, share, held } = this.#deps;
    if (share.bufferedBytes >= bufferedBytes) {
      return new MeshError('CV-BUDGET-BUFFERS', `this workload holds ${share.bufferedBytes} bytes in buffers`);
    }
    if (kind === 'handshake') {
      if (this.#tokens.has(clock.monotonicMs())) return undefined;
      return new MeshError(
        'CV-BUDGET-HANDSHAKES',
        `this workload may begin ${handshakesPerSecond} handshakes a second`,
      );
    }
    if (held() - waiting < connections) return undefined;
    return new MeshError('CV-BUDGET-CONNECTIONS', `this workload already has its ${connections} connections`);
  }

  #bucket(): TokenBucket {
    const rate = this.#budget.handshakesPerSecond;
    return new TokenBucket({ burst: rate, perSecond: rate }, this.#deps.clock.monotonicMs());
  }
}

function tooManyWait(): MeshError {
  return new MeshError('CV-BUDGET-QUEUE', `${MAX_DELAYED} new connections of this workload wait already`);
}
