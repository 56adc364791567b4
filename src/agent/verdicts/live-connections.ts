/**
 * The accepted inbound connections while they live, judged again after each change of the mesh: in slices of time, so that
 * however many there are, nobody else on this thread waits for long.
 */
import type { Clock } from '../../base/clock.ts';
import { formatHostPort } from '../../base/ip.ts';
import type { Logger } from '../../base/log.ts';
import { SlotMap } from '../../base/slot-map.ts';
import { reauthorize, type TrackedConnection } from '../../model/inbound-verdict.ts';
import type { MeshIndex } from '../../model/mesh-index.ts';
import type { Refusal } from '../../model/verdict.ts';

/**
 * Longest run of judging and closing in one turn, milliseconds; the pause after it is as long. Short, because the collector
 * of garbage, which comes when it likes, may add ten to it.
 */
const SLICE_MS = 2;
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
  readonly #live = new SlotMap<string, Live>();
  #changes = 0;
  /** How many are not judged after the last change. */
  #behind = 0;
  /**
   * Who comes next, round and round: with changes faster than a round everybody still has a turn. Absent while nobody is
   * judged, since an iterator that waits keeps what its map was before it grew.
   */
  #round: MapIterator<string> | undefined;

  constructor(deps: LiveConnectionsDeps) {
    this.#deps = deps;
  }

  get size(): number {
    return this.#live.size;
  }

  /** `tracked` was judged by the mesh as it is now. */
  add(connectionId: string, tracked: TrackedConnection): void {
    this.delete(connectionId);
    this.#live.set(connectionId, { tracked, judgedAfter: this.#changes });
  }

  /** `tracked` was allowed by the mesh as it was before: judged again now, as its turn may be over. */
  addFormer(connectionId: string, tracked: TrackedConnection): void {
    const closing = new Closing(this.#deps.revoke);
    if (this.#judge(connectionId, tracked, closing)) this.add(connectionId, tracked);
    closing.flush();
  }

  /** `tracked`: unless somebody else has added it since. */
  delete(connectionId: string, tracked?: TrackedConnection): void {
    const live = this.#live.get(connectionId);
    if (live === undefined || (tracked !== undefined && live.tracked !== tracked)) return;
    if (live.judgedAfter !== this.#changes) this.#behind -= 1;
    this.#live.delete(connectionId);
  }

  /**
   * The mesh changed: everybody is to be judged again, soon. Never in this turn: who was accepted in it is not yet known to
   * the data plane, which could not close it.
   */
  rejudge(): void {
    this.#changes += 1;
    this.#behind = this.#live.size;
    if (this.#round !== undefined) return;
    this.#round = this.#live.keys();
    this.#deps.clock.after(0, () => this.#slice());
  }

  #slice(): void {
    try {
      this.#judgeSome();
    } finally {
      if (this.#behind === 0) this.#round = undefined;
      else this.#deps.clock.after(SLICE_MS, () => this.#slice());
    }
  }

  #judgeSome(): void {
    const { clock, revoke } = this.#deps;
    const endMs = clock.monotonicMs() + SLICE_MS;
    const closing = new Closing(revoke);
    do this.#judgeNext(closing);
    while (this.#behind > 0 && clock.monotonicMs() < endMs);
    closing.flush();
  }

  #judgeNext(closing: Closing): void {
    const next = this.#round?.next();
    if (next === undefined || next.done === true) {
      this.#round = this.#live.keys();
      return;
    }
    const id = next.value;
    const live = this.#live.get(id);
    if (live === undefined || live.judgedAfter === this.#changes) return;
    if (!this.#judge(id, live.tracked, closing)) return;
    live.judgedAfter = this.#changes;
    this.#behind -= 1;
  }

  /** True when it stays; else it is closed once and for all: later changes allow new connections, not this one. */
  #judge(id: string, tracked: TrackedConnection, closing: Closing): boolean {
    const { index, log } = this.#deps;
    const refusal = reauthorize(index, tracked);
    if (refusal === undefined) return true;
    this.delete(id);
    log.info?.(refusal.text, { src: formatHostPort(tracked.source), dst: formatHostPort(tracked.destination) });
    closing.add(id, refusal);
    return false;
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
