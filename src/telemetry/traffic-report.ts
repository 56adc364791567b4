/** Counts the connections of one thread for another one: what happened since the last report, as plain data. */
import type { ReasonCode, ResponseFlag } from '../base/reasons.ts';
import { SlotMap } from '../base/slot-map.ts';
import type { ConnectionCounts, ConnectionEnd } from './connection-records.ts';
import type { ConnectionKind, ConnectionStart } from './traffic.ts';
import type { TrafficLabels } from './traffic-labels.ts';
import { type TrafficSeries, TrafficSeriesTable } from './traffic-series.ts';

type Direction = ConnectionStart['direction'];
type Reporter = 'source' | 'destination';

/** A label set, to be known by its number from now on. */
export interface SeriesName {
  readonly id: number;
  readonly key: string;
  readonly labels: TrafficLabels;
}

/** What a label set gained. */
export interface SeriesGain {
  readonly id: number;
  readonly opened: number;
  /** Open connections: may be negative. */
  readonly live: number;
  readonly receivedBytes: number;
  readonly sentBytes: number;
  readonly closed: readonly (readonly [ResponseFlag, number])[];
}

export interface OpenConnection {
  readonly start: ConnectionStart;
  readonly openedWallMs: number;
}

export interface TrafficReport {
  readonly names: readonly SeriesName[];
  readonly gains: readonly SeriesGain[];
  /** Numbers that will not be used again. */
  readonly forgotten: readonly number[];
  readonly refused: readonly (readonly [ReasonCode, Direction, number])[];
  /** Peers turned away, or cut off, because of a revocation list. */
  readonly peersRevoked: Readonly<Record<Reporter, number>>;
  /** Sockets held now. */
  readonly sockets: Readonly<Record<Reporter, number>>;
  /** Opened since the last report and still open. */
  readonly opened: readonly OpenConnection[];
  /** Reported as open before, and over now. */
  readonly ended: readonly string[];
  /** Came from another process: how long each stood still, milliseconds. */
  readonly moved: readonly (readonly [ConnectionKind, pauseMs: number])[];
  /** Went to another process. */
  readonly left: readonly ConnectionKind[];
  /** Could not move to the next process, and were ended for that. */
  readonly cut: readonly ConnectionKind[];
}

/** What was reported of a label set so far. */
interface Told {
  readonly id: number;
  opened: number;
  live: number;
  receivedBytes: number;
  sentBytes: number;
  readonly closed: Map<ResponseFlag, number>;
}

export class TrafficReporter implements ConnectionCounts {
  readonly #wallMs: () => number;
  readonly #onNews: () => void;
  readonly #told = new Map<TrafficSeries, Told>();
  /** Given up by the table; what they gained last is still to be told. */
  #evicted: TrafficSeries[] = [];
  readonly #table: TrafficSeriesTable;
  #lastId = 0;
  readonly #sockets: Record<Reporter, number> = { source: 0, destination: 0 };
  #peersRevoked: Record<Reporter, number> = { source: 0, destination: 0 };
  #refused = new Map<string, [ReasonCode, Direction, number]>();
  /** Bounded by the open connections. */
  readonly #fresh = new SlotMap<string, OpenConnection>();
  #ended: string[] = [];
  #moved: TrafficReport['moved'][number][] = [];
  #left: ConnectionKind[] = [];
  #cut: ConnectionKind[] = [];

  /** `onNews`: something happened that the other thread does not know yet; bytes alone are no news. */
  constructor(wallMs: () => number, onNews: () => void, maxLabelSets?: number) {
    this.#wallMs = wallMs;
    this.#onNews = onNews;
    this.#table = new TrafficSeriesTable(maxLabelSets, (series) => this.#evicted.push(series));
  }

  opened(start: ConnectionStart): TrafficSeries {
    this.#fresh.set(start.id, { start, openedWallMs: this.#wallMs() - (start.setupMs ?? 0) });
    this.#onNews();
    return start.earlier === undefined ? this.#table.open(start.labels) : this.#table.adopt(start.labels);
  }

  moved(kind: ConnectionKind, pauseMs: number): void {
    this.#moved.push([kind, pauseMs]);
    this.#onNews();
  }

  /** What began and ended between two reports is in the numbers only. */
  ended({ id, direction, protocol }: ConnectionStart, end: ConnectionEnd): void {
    const kind = { direction, protocol };
    if (end === 'moved') this.#left.push(kind);
    if (end === 'CV-HOLD') this.#cut.push(kind);
    if (!this.#fresh.delete(id)) this.#ended.push(id);
    this.#onNews();
  }

  refused(code: ReasonCode, direction: Direction): void {
    const key = `${code} ${direction}`;
    const entry = this.#refused.get(key) ?? [code, direction, 0];
    entry[2] += 1;
    this.#refused.set(key, entry);
    this.#onNews();
  }

  socketOpened(reporter: Reporter): void {
    this.#sockets[reporter] += 1;
    this.#onNews();
  }

  socketClosed(reporter: Reporter): void {
    this.#sockets[reporter] -= 1;
    this.#onNews();
  }

  peerRevoked(reporter: Reporter): void {
    this.#peersRevoked[reporter] += 1;
    this.#onNews();
  }

  /** Everything since the last call. */
  take(): TrafficReport {
    const names: SeriesName[] = [];
    const gains = [...this.#evicted, ...this.#table.all()].flatMap((series) => this.#gainOf(series, names));
    const report = {
      names,
      gains,
      forgotten: this.#forget(),
      refused: [...this.#refused.values()],
      peersRevoked: this.#peersRevoked,
      sockets: { ...this.#sockets },
      opened: [...this.#fresh.values()],
      ended: this.#ended,
      moved: this.#moved,
      left: this.#left,
      cut: this.#cut,
    };
    this.#refused = new Map();
    this.#peersRevoked = { source: 0, destination: 0 };
    this.#fresh.clear();
    this.#ended = [];
    this.#moved = [];
    this.#left = [];
    this.#cut = [];
    return report;
  }

  /** None when nothing changed. */
  #gainOf(series: TrafficSeries, names: SeriesName[]): SeriesGain[] {
    const told = this.#told.get(series) ?? this.#introduce(series, names);
    const opened = series.opened - told.opened;
    const live = series.live - told.live;
    const receivedBytes = series.receivedBytes - told.receivedBytes;
    const sentBytes = series.sentBytes - told.sentBytes;
    const closed = [...series.closed].flatMap(([flag, count]): [ResponseFlag, number][] => {
      const gained = count - (told.closed.get(flag) ?? 0);
      told.closed.set(flag, count);
      return gained === 0 ? [] : [[flag, gained]];
    });
    told.opened = series.opened;
    told.live = series.live;
    told.receivedBytes = series.receivedBytes;
    told.sentBytes = series.sentBytes;
    const isNothing = opened === 0 && live === 0 && receivedBytes === 0 && sentBytes === 0 && closed.length === 0;
    return isNothing ? [] : [{ id: told.id, opened, live, receivedBytes, sentBytes, closed }];
  }

  #introduce(series: TrafficSeries, names: SeriesName[]): Told {
    const told: Told = { id: ++this.#lastId, opened: 0, live: 0, receivedBytes: 0, sentBytes: 0, closed: new Map() };
    this.#told.set(series, told);
    names.push({ id: told.id, key: series.key, labels: series.labels });
    return told;
  }

  #forget(): number[] {
    const ids = this.#evicted.flatMap((series) => this.#told.get(series)?.id ?? []);
    for (const series of this.#evicted) this.#told.delete(series);
    this.#evicted = [];
    return ids;
  }
}
