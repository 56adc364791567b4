/** The counters behind the traffic metrics: one object of plain numbers per label set. */
import type { ResponseFlag } from '../base/reasons.ts';
import type { ConnectionLabels } from '../model/verdict.ts';
import type { Family, Sample } from './openmetrics.ts';
import { anonymousLabels, labelKey, type TrafficLabels, trafficLabels } from './traffic-labels.ts';

/** Label sets kept at once. One set costs about 2 KiB here and at least four series in the scraper. */
const MAX_LABEL_SETS = 10_000;
/** Oldest sets looked at to find an idle one to give up. */
const EVICTION_SCAN = 64;

/** Numbers of one label set. Connections add to them directly; nobody looks a label up while bytes flow. */
export class TrafficSeries {
  /** Equal for equal label sets. */
  readonly key: string;
  readonly labels: TrafficLabels;
  opened = 0;
  /** Client to server, as Istio names it. */
  receivedBytes = 0;
  /** Server to client. */
  sentBytes = 0;
  readonly closed = new Map<ResponseFlag, number>();
  /** Open connections that hold this object; a set in use is never given up. */
  live = 0;

  constructor(key: string, labels: TrafficLabels) {
    this.key = key;
    this.labels = labels;
  }

  close(flag: ResponseFlag): void {
    this.leave();
    this.closed.set(flag, (this.closed.get(flag) ?? 0) + 1);
  }

  /** Another process goes on with the connection, and counts its end. */
  leave(): void {
    this.live -= 1;
  }
}

/**
 * All label sets, bounded. Over the bound the longest unused set without a live connection is given up (its counters
 * restart from 0 when it comes back, which rate() understands); if all are live, new ones share one unnamed set.
 */
export class TrafficSeriesTable {
  readonly #maxSets: number;
  readonly #onEvicted: (series: TrafficSeries) => void;
  readonly #sets = new Map<string, TrafficSeries>();
  #evicted = 0;

  constructor(maxSets: number = MAX_LABEL_SETS, onEvicted: (series: TrafficSeries) => void = () => {}) {
    this.#maxSets = maxSets;
    this.#onEvicted = onEvicted;
  }

  get size(): number {
    return this.#sets.size;
  }

  get evicted(): number {
    return this.#evicted;
  }

  /** The numbers of `labels`, counted as one connection more. Give back with `close`, or with `leave`. */
  open(labels: ConnectionLabels): TrafficSeries {
    const series = this.adopt(labels);
    series.opened += 1;
    return series;
  }

  /** As `open`, for a connection that another process has counted as opened: the sum over both has it once. */
  adopt(labels: ConnectionLabels): TrafficSeries {
    const series = this.resolve(labelKey(labels), () => trafficLabels(labels));
    series.live += 1;
    return series;
  }

  all(): Iterable<TrafficSeries> {
    return this.#sets.values();
  }

  /** The numbers of a label set, or of the unnamed set when there are too many. */
  resolve(key: string, labelsOf: () => TrafficLabels): TrafficSeries {
    const found = this.#sets.get(key);
    if (found !== undefined) {
      // Re-inserted, so that map order is order of last use.
      this.#sets.delete(key);
      this.#sets.set(key, found);
      return found;
    }
    const labels = labelsOf();
    if (this.#sets.size < this.#maxSets || this.#evictIdle()) return this.#add(key, labels);
    const anonymous = anonymousLabels(labels);
    const shared = `shared\n${anonymous.reporter}\n${anonymous.connection_security_policy}`;
    return this.#sets.get(shared) ?? this.#add(shared, anonymous);
  }

  families(): readonly Family[] {
    const all = [...this.#sets.values()];
    const closed = all.flatMap((series) => closedSamples(series));
    return [
      family(
        'istio_tcp_connections_opened_total',
        'The total number of TCP connections opened.',
        samples(all, 'opened'),
      ),
      family('istio_tcp_connections_closed_total', 'The total number of TCP connections closed.', closed),
      family('istio_tcp_received_bytes_total', RECEIVED_HELP, samples(all, 'receivedBytes')),
      family('istio_tcp_sent_bytes_total', SENT_HELP, samples(all, 'sentBytes')),
      family('istio_tcp_connections_failed_total', FAILED_HELP, closed.filter(isFailure)),
    ];
  }

  #add(key: string, labels: TrafficLabels): TrafficSeries {
    const series = new TrafficSeries(key, labels);
    this.#sets.set(key, series);
    return series;
  }

  #evictIdle(): boolean {
    let scanned = 0;
    for (const [key, series] of this.#sets) {
      if (scanned++ >= EVICTION_SCAN) return false;
      this.#sets.delete(key);
      if (series.live === 0) {
        this.#evicted += 1;
        this.#onEvicted(series);
        return true;
      }
      // To the end: the next scan starts with sets this one did not see.
      this.#sets.set(key, series);
    }
    return false;
  }
}

const RECEIVED_HELP = 'The size of total bytes received during request in case of a TCP connection.';
const SENT_HELP = 'The size of total bytes sent during response in case of a TCP connection.';
const FAILED_HELP = 'The total number of TCP connections that ended with an error (unstable).';

function family(name: string, help: string, samplesOf: readonly Sample[]): Family {
  return { name, help, type: 'counter', samples: samplesOf };
}

function samples(all: readonly TrafficSeries[], field: 'opened' | 'receivedBytes' | 'sentBytes'): readonly Sample[] {
  return all.map((series) => ({ labels: series.labels, value: series[field] }));
}

function closedSamples(series: TrafficSeries): readonly Sample[] {
  return [...series.closed].map(([flag, value]) => ({ labels: { ...series.labels, response_flags: flag }, value }));
}

function isFailure(sample: Sample): boolean {
  return sample.labels['response_flags'] !== '-';
}
