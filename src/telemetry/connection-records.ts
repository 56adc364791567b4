/**
 * Every connection of this agent: counted and logged exactly once, listed while open, remembered for a while after. In a flood of
 * early refusals all are counted, and most told together.
 */
import type { Clock } from '../base/clock.ts';
import type { Logger } from '../base/log.ts';
import { type ReasonCode, reasonOf } from '../base/reasons.ts';
import { SlotMap } from '../base/slot-map.ts';
import type { Refusal } from '../model/verdict.ts';
import { type ConnectionOutcome, logComplete, logFailed, logOpened } from './access-log.ts';
import { type ConnectionView, earlyView, viewOf } from './connection-view.ts';
import { RefusalLimit } from './refusal-limit.ts';
import { rfc3339 } from './timestamp.ts';
import type { ConnectionKind, ConnectionRecord, ConnectionStart, EarlyRefusal, TrafficTelemetry } from './traffic.ts';
import type { TrafficSeries } from './traffic-series.ts';

/** Ended connections remembered for `culvert explain`. About 1 KiB each. */
const MAX_ENDED = 1_024;

/** `moved`: it goes on in another process. `undefined`: it ended in order. */
export type ConnectionEnd = ReasonCode | 'moved' | undefined;

/** Where connections are counted. */
export interface ConnectionCounts {
  /** The numbers of the connection's label set, with this connection in them. */
  opened(start: ConnectionStart): TrafficSeries;
  /** Its series was closed before. */
  ended(start: ConnectionStart, end: ConnectionEnd): void;
  moved(kind: ConnectionKind, pauseMs: number): void;
  refused(code: ReasonCode, direction: ConnectionStart['direction']): void;
  socketOpened(reporter: 'source' | 'destination'): void;
  socketClosed(reporter: 'source' | 'destination'): void;
  peerRevoked(reporter: 'source' | 'destination'): void;
}

export interface TrafficDeps {
  readonly metrics: ConnectionCounts;
  /** The `access` scope. */
  readonly accessLog: Logger;
  readonly clock: Clock;
  /** Begins the ids of connections that were refused early; another one for each thread. */
  readonly earlyPrefix?: string;
}

/** Totals since the start of the agent. */
export interface TrafficTotals {
  readonly live: number;
  /** Without those that another process had before. */
  readonly opened: number;
  /** Refused or cut, by reason; only reasons that occurred. */
  readonly refused: Readonly<Partial<Record<ReasonCode, number>>>;
}

export class ConnectionRecords implements TrafficTelemetry {
  readonly #deps: TrafficDeps;
  readonly #live = new SlotMap<string, LiveRecord>();
  /** Oldest first. Views are made when somebody asks, not at every end. */
  readonly #ended = new SlotMap<string, Viewable>();
  readonly #refused = new Map<ReasonCode, number>();
  readonly #limit: RefusalLimit;
  #opened = 0;
  #early = 0;

  constructor(deps: TrafficDeps) {
    this.#deps = deps;
    this.#limit = new RefusalLimit(deps);
  }

  open(start: ConnectionStart): ConnectionRecord {
    if (start.earlier === undefined) this.#opened += 1;
    const series = this.#deps.metrics.opened(start);
    const record = new LiveRecord(start, series, this.#deps.clock, this.#onEnd);
    this.#live.set(start.id, record);
    logOpened(this.#deps.accessLog, start);
    return record;
  }

  moved({ direction, protocol }: ConnectionKind, pauseMs: number): void {
    this.#deps.metrics.moved({ direction, protocol }, pauseMs);
  }

  refused(early: EarlyRefusal): void {
    this.#countRefusal(early.refusal.code, early.direction);
    if (!this.#limit.isTold(early)) return;
    const id = `${this.#deps.earlyPrefix ?? 'early'}-${++this.#early}`;
    logFailed(this.#deps.accessLog, early, id);
    const wallMs = this.#deps.clock.wallMs();
    this.#remember(id, { view: () => earlyView(id, early, rfc3339(wallMs)) });
  }

  /** Tells what is only counted yet: nobody will be here to tell it later. */
  sumUp(): void {
    this.#limit.sumUp();
  }

  /** Ends every open record: whoever carries the connections is about to end. */
  endAll(refusal: Refusal): void {
    this.sumUp();
    for (const record of [...this.#live.values()]) record.close(refusal);
  }

  socketOpened(reporter: 'source' | 'destination'): void {
    this.#deps.metrics.socketOpened(reporter);
  }

  socketClosed(reporter: 'source' | 'destination'): void {
    this.#deps.metrics.socketClosed(reporter);
  }

  peerRevoked(reporter: 'source' | 'destination'): void {
    this.#deps.metrics.peerRevoked(reporter);
  }

  /** Open connections, oldest first. */
  live(): readonly ConnectionView[] {
    return [...this.#live.values()].map((record) => record.view());
  }

  /** An open connection or one of the last 1,024 that ended. */
  find(id: string): ConnectionView | undefined {
    return (this.#live.get(id) ?? this.#ended.get(id))?.view();
  }

  /** Refused and cut connections still remembered, newest first. */
  recentRefusals(): readonly ConnectionView[] {
    const views = [...this.#ended.values()].map((ended) => ended.view());
    return views.filter((view) => view.reason !== undefined).reverse();
  }

  totals(): TrafficTotals {
    return { live: this.#live.size, opened: this.#opened, refused: Object.fromEntries(this.#refused) };
  }

  /** One function for all records. */
  readonly #onEnd: OnEnd = (record, refusal, isMoved) => this.#end(record, refusal, isMoved);

  #end(record: LiveRecord, refusal: Refusal | undefined, isMoved: boolean): void {
    const { start } = record;
    if (this.#live.get(start.id) === record) this.#live.delete(start.id);
    if (isMoved) {
      this.#deps.metrics.ended(start, 'moved');
      return;
    }
    if (refusal !== undefined) this.#countRefusal(refusal.code, start.direction);
    this.#deps.metrics.ended(start, refusal?.code);
    logComplete(this.#deps.accessLog, start, record.outcome());
    this.#remember(start.id, record);
  }

  #countRefusal(code: ReasonCode, direction: 'inbound' | 'outbound'): void {
    this.#refused.set(code, (this.#refused.get(code) ?? 0) + 1);
    this.#deps.metrics.refused(code, direction);
  }

  #remember(id: string, ended: Viewable): void {
    this.#ended.set(id, ended);
    if (this.#ended.size <= MAX_ENDED) return;
    for (const oldest of this.#ended.keys()) {
      this.#ended.delete(oldest);
      return;
    }
  }
}

interface Viewable {
  view(): ConnectionView;
}

type OnEnd = (record: LiveRecord, refusal: Refusal | undefined, isMoved: boolean) => void;

/** One connection, open or ended. Adding bytes touches numbers only. */
class LiveRecord implements ConnectionRecord, Viewable {
  readonly start: ConnectionStart;
  readonly #series: TrafficSeries;
  readonly #clock: Clock;
  readonly #openedMs: number;
  readonly #openedWallMs: number;
  #onEnd: OnEnd | undefined;
  #endedMs: number | undefined;
  #refusal: Refusal | undefined;
  #clientBytes = 0;
  #serverBytes = 0;
  #activeMs: number;

  constructor(start: ConnectionStart, series: TrafficSeries, clock: Clock, onEnd: OnEnd) {
    this.start = start;
    this.#series = series;
    this.#clock = clock;
    const { setupMs = 0 } = start;
    this.#openedMs = clock.monotonicMs() - setupMs;
    this.#openedWallMs = clock.wallMs() - setupMs;
    this.#onEnd = onEnd;
    const { clientBytes = 0, serverBytes = 0, idleMs = 0 } = start.earlier ?? {};
    this.#activeMs = clock.monotonicMs() - idleMs;
    this.#clientBytes = clientBytes;
    this.#serverBytes = serverBytes;
  }

  addClientBytes(bytes: number): void {
    this.#activeMs = this.#clock.monotonicMs();
    this.#clientBytes += bytes;
    this.#series.receivedBytes += bytes;
  }

  addServerBytes(bytes: number): void {
    this.#activeMs = this.#clock.monotonicMs();
    this.#serverBytes += bytes;
    this.#series.sentBytes += bytes;
  }

  close(refusal?: Refusal): void {
    const onEnd = this.#onEnd;
    if (onEnd === undefined) return;
    this.#onEnd = undefined;
    this.#endedMs = this.#clock.monotonicMs();
    this.#refusal = refusal;
    this.#series.close(refusal === undefined ? '-' : reasonOf(refusal.code).flag);
    onEnd(this, refusal, false);
  }

  move(): ConnectionStart {
    const onEnd = this.#onEnd;
    this.#onEnd = undefined;
    this.#endedMs ??= this.#clock.monotonicMs();
    if (onEnd !== undefined) {
      // The next process counts its end, and not its beginning.
      this.#series.leave();
      onEnd(this, undefined, true);
    }
    const { clientBytes, serverBytes, durationMs } = this.outcome();
    return { ...this.start, setupMs: durationMs, earlier: { clientBytes, serverBytes, idleMs: this.idleMs } };
  }

  get idleMs(): number {
    return Math.trunc(this.#clock.monotonicMs() - this.#activeMs);
  }

  outcome(): ConnectionOutcome & { readonly clientBytes: number; readonly serverBytes: number } {
    const durationMs = Math.trunc((this.#endedMs ?? this.#clock.monotonicMs()) - this.#openedMs);
    return { clientBytes: this.#clientBytes, serverBytes: this.#serverBytes, durationMs, refusal: this.#refusal };
  }

  view(): ConnectionView {
    const state = this.#state();
    const idle = state === 'open' ? { idleMs: this.idleMs } : {};
    return viewOf(this.start, state, { openedAt: rfc3339(this.#openedWallMs), ...idle, ...this.outcome() });
  }

  #state(): ConnectionView['state'] {
    if (this.#endedMs === undefined) return 'open';
    return this.#refusal === undefined ? 'complete' : 'refused';
  }
}
