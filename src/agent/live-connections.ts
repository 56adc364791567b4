/**
 * The accepted inbound connections while they live, judged again after each change of the mesh (datapath facts §4.8): in
 * slices of time, so that however many there are, nobody else on this thread waits for long.
 */
import type { Clock } from '../base/clock.ts';
import { formatHostPort } from '../base/ip.ts';
import type { Logger } from '../base/log.ts';
import { reauthorize, type TrackedConnection } from '../model/inbound-verdict.ts';
import type { MeshIndex } from '../model/mesh-index.ts';
import type { Refusal } from '../model/verdict.ts';

/** Longest run of judging and closing in one turn, milliseconds; the pause after it is as long. */
const SLICE_MS = 5;
/** Connections closed between two looks at the clock: closing one costs more than judging many. */
const MAX_CLOSED_AT_ONCE = 16;

export interface LiveConnectionsDeps {
  readonly index: MeshIndex;
  readonly clock: Clock;
  readonly log: Logger;
  readonly revoke: (connectionIds: readonly string[], refusal: Refusal) => void;
}

interface Live {
  readonly tracked: TrackedConnection;
  /** Number of the change of the mesh it was judged after last. */
  judgedAfter: number;
}

/** Bounded by the connections that are open. */
export class LiveConnections {
  readonly #deps: LiveConnectionsDeps;
  /** Who was judged longest ago comes first: with changes faster than a round, everybody still has a turn. */
  readonly #live = new Map<string, Live>();
  #changes = 0;
  #isJudging = false;

  constructor(deps: LiveConnectionsDeps) {
    this.#deps = deps;
  }

  get size(): number {
    return this.#live.size;
  }

  /** `tracked` was judged by the mesh as it is now. */
  add(connectionId: string, tracked: TrackedConnection): void {
    this.#live.delete(connectionId);
    this.#live.set(connectionId, { tracked, judgedAfter: this.#changes });
  }

  /** `tracked` was allowed by the mesh as it was before: judged again now, as its turn may be over. */
  addFormer(connectionId: string, tracked: TrackedConnection): void {
    const closing = new Closing(this.#deps.revoke);
    this.#judge(connectionId, tracked, closing);
    closing.flush();
  }

  delete(connectionId: string): void {
    this.#live.delete(connectionId);
  }

  /**
   * The mesh changed: everybody is to be judged again, soon. Never in this turn: who was accepted in it is not yet known to
   * the data plane, which could not close it.
   */
  rejudge(): void {
    this.#changes += 1;
    if (this.#isJudging) return;
    this.#isJudging = true;
    this.#deps.clock.after(0, () => this.#slice());
  }

  #slice(): void {
    let isRoundOver = false;
    try {
      isRoundOver = this.#judgeSome();
    } finally {
      this.#isJudging = !isRoundOver;
      if (!isRoundOver) this.#deps.clock.after(SLICE_MS, () => this.#slice());
    }
  }

  /** True when nobody is left to judge. */
  #judgeSome(): boolean {
    const { clock, revoke } = this.#deps;
    const endMs = clock.monotonicMs() + SLICE_MS;
    const closing = new Closing(revoke);
    for (const [id, live] of this.#live) {
      if (live.judgedAfter === this.#changes) break;
      this.#judge(id, live.tracked, closing);
      if (clock.monotonicMs() < endMs) continue;
      closing.flush();
      return false;
    }
    closing.flush();
    return true;
  }

  #judge(id: string, tracked: TrackedConnection, closing: Closing): void {
    const { index, log } = this.#deps;
    const refusal = reauthorize(index, tracked);
    if (refusal === undefined) {
      this.add(id, tracked);
      return;
    }
    // Closed once and for all: later changes allow new connections, not this one.
    this.#live.delete(id);
    log.info?.(refusal.text, { src: formatHostPort(tracked.source), dst: formatHostPort(tracked.destination) });
    closing.add(id, refusal);
  }
}

/** Gathers what is to be closed into small pushes. */
class Closing {
  readonly #revoke: LiveConnectionsDeps['revoke'];
  #ids: string[] = [];
  #refusal: Refusal | undefined;

  constructor(revoke: LiveConnectionsDeps['revoke']) {
    this.#revoke = revoke;
  }

  add(id: string, refusal: Refusal): void {
    if (this.#refusal?.code !== refusal.code) this.flush();
    this.#refusal = refusal;
    this.#ids.push(id);
    if (this.#ids.length >= MAX_CLOSED_AT_ONCE) this.flush();
  }

  flush(): void {
    const [ids, refusal] = [this.#ids, this.#refusal];
    this.#ids = [];
    if (ids.length > 0 && refusal !== undefined) this.#revoke(ids, refusal);
  }
}
