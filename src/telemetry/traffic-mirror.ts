/** What one thread knows of the connections of another: their numbers, and which are open. Fed with reports. */
import { BoundedMap } from '../base/bounded-map.ts';
import type { Logger } from '../base/log.ts';
import { type ReasonCode, reasonOf } from '../base/reasons.ts';
import { SlotMap } from '../base/slot-map.ts';
import type { ConnectionLabels, Refusal } from '../model/verdict.ts';
import { logComplete } from './access-log.ts';
import { type ConnectionView, viewOf } from './connection-view.ts';
import type { AgentMetrics } from './metrics.ts';
import { rfc3339 } from './timestamp.ts';
import { labelKey, trafficLabels } from './traffic-labels.ts';
import type { OpenConnection, SeriesGain, SeriesName, TrafficReport } from './traffic-report.ts';

export interface MirrorDeps {
  readonly metrics: AgentMetrics;
  /** The `access` scope. */
  readonly accessLog: Logger;
  readonly wallMs: () => number;
}

/** Totals of one thread since its start. */
export interface MirrorTotals {
  readonly live: number;
  readonly opened: number;
  readonly refused: ReadonlyMap<ReasonCode, number>;
}

const REPORTERS = ['source', 'destination'] as const;
/** Label sets kept once for all connections that have them. */
const MAX_SHARED_LABELS = 1_024;

export class TrafficMirror {
  readonly #deps: MirrorDeps;
  readonly #names = new Map<number, SeriesName>();
  readonly #open = new SlotMap<string, OpenConnection>();
  readonly #labels = new BoundedMap<string, ConnectionLabels>(MAX_SHARED_LABELS);
  readonly #refused = new Map<ReasonCode, number>();
  #sockets: TrafficReport['sockets'] = { source: 0, destination: 0 };
  #opened = 0;

  constructor(deps: MirrorDeps) {
    this.#deps = deps;
  }

  /** Reports come in the order they were taken in. */
  add(report: TrafficReport): void {
    for (const name of report.names) this.#names.set(name.id, name);
    for (const gain of report.gains) this.#addGain(gain);
    for (const id of report.forgotten) this.#names.delete(id);
    for (const [code, direction, count] of report.refused) this.#addRefused(code, direction, count);
    for (const reporter of REPORTERS) {
      if (report.peersRevoked[reporter] > 0) this.#deps.metrics.peerRevoked(reporter, report.peersRevoked[reporter]);
    }
    this.#setSockets(report.sockets);
    for (const [kind, pauseMs] of report.moved) this.#deps.metrics.moved(kind, pauseMs);
    for (const kind of report.left) this.#deps.metrics.handOver.left(kind);
    for (const kind of report.cut) this.#deps.metrics.handOver.cut(kind);
    for (const { start, openedWallMs } of report.opened) {
      this.#open.set(start.id, { start: { ...start, labels: this.#shared(start.labels) }, openedWallMs });
    }
    for (const id of report.ended) this.#open.delete(id);
  }

  totals(): MirrorTotals {
    return { live: this.#open.size, opened: this.#opened, refused: this.#refused };
  }

  /** The other thread is gone: what it had open, as far as it told, ended with it. Each gets its line and is counted. */
  lost(refusal: Refusal): readonly ConnectionView[] {
    const views = [...this.#open.values()].map((connection) => this.#end(connection, refusal));
    this.#open.clear();
    this.#setSockets({ source: 0, destination: 0 });
    return views;
  }

  /** How many bytes it carried, nobody knows. */
  #end({ start, openedWallMs }: OpenConnection, refusal: Refusal): ConnectionView {
    const { metrics, accessLog, wallMs } = this.#deps;
    const outcome = { durationMs: Math.max(0, Math.trunc(wallMs() - openedWallMs)), refusal };
    const series = metrics.traffic.resolve(labelKey(start.labels), () => trafficLabels(start.labels));
    series.close(reasonOf(refusal.code).flag);
    this.#addRefused(refusal.code, start.direction, 1);
    logComplete(accessLog, start, outcome);
    return viewOf(start, 'refused', { openedAt: rfc3339(openedWallMs), ...outcome });
  }

  /** Most connections have the labels of another one; what comes through a port is a copy each time. */
  #shared(labels: ConnectionLabels): ConnectionLabels {
    const key = `${labelKey(labels)}\n${labels.source?.pod}\n${labels.destination?.pod}`;
    const known = this.#labels.get(key);
    if (known === undefined) this.#labels.set(key, labels);
    return known ?? labels;
  }

  #addGain({ id, opened, live, receivedBytes, sentBytes, closed }: SeriesGain): void {
    const name = this.#names.get(id);
    if (name === undefined) return;
    const series = this.#deps.metrics.traffic.resolve(name.key, () => name.labels);
    series.opened += opened;
    series.live += live;
    series.receivedBytes += receivedBytes;
    series.sentBytes += sentBytes;
    for (const [flag, count] of closed) series.closed.set(flag, (series.closed.get(flag) ?? 0) + count);
    this.#opened += opened;
  }

  #addRefused(code: ReasonCode, direction: 'inbound' | 'outbound', count: number): void {
    this.#refused.set(code, (this.#refused.get(code) ?? 0) + count);
    this.#deps.metrics.refused(code, direction, count);
  }

  #setSockets(sockets: TrafficReport['sockets']): void {
    for (const reporter of REPORTERS) {
      this.#deps.metrics.addSockets(reporter, sockets[reporter] - this.#sockets[reporter]);
    }
    this.#sockets = sockets;
  }
}
