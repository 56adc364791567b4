/** The DNS metrics: one object of plain numbers per label set, bounded. */
import { BoundedMap } from '../base/bounded-map.ts';
import type { Family, Sample } from './openmetrics.ts';

/** Types and transports are closed sets, so this is room for some hundred client services. */
const MAX_LABEL_SETS = 10_000;
/** Upper bounds in seconds, as ztunnel writes them. */
const BUCKETS = ['0.0005', '0.001', '0.01', '0.1', '1.0', '5.0', '+Inf'] as const;
const PREFIX = 'istio_dns_';

export interface DnsLabels {
  readonly request_query_type: string;
  readonly request_protocol: string;
  readonly source_canonical_service: string;
  readonly source_canonical_revision: string;
}

/** Numbers of one label set, to be added to those of another table. */
export interface DnsGain {
  readonly labels: DnsLabels;
  readonly requests: number;
  readonly forwarded: number;
  readonly failures: number;
  readonly seconds: number;
  readonly buckets: readonly number[];
}

class DnsSeries {
  readonly labels: DnsLabels & Readonly<Record<string, string>>;
  requests = 0;
  forwarded = 0;
  failures = 0;
  seconds = 0;
  /** Per bucket, not cumulative. */
  readonly buckets: number[] = BUCKETS.map(() => 0);

  constructor(labels: DnsLabels) {
    this.labels = { ...labels };
  }
}

/** Over the bound the set not used for longest is given up: its counters restart from 0 when it comes back. */
export class DnsSeriesTable {
  readonly #sets: BoundedMap<string, DnsSeries>;

  constructor(maxSets: number = MAX_LABEL_SETS) {
    this.#sets = new BoundedMap(maxSets);
  }

  get size(): number {
    return this.#sets.size;
  }

  asked(labels: DnsLabels): void {
    this.#of(labels).requests += 1;
  }

  forwarded(labels: DnsLabels, seconds: number, isFailure: boolean): void {
    const series = this.#of(labels);
    series.forwarded += 1;
    series.seconds += seconds;
    if (isFailure) series.failures += 1;
    const bucket = BUCKETS.findIndex((bound) => bound === '+Inf' || seconds <= Number(bound));
    series.buckets[bucket] = (series.buckets[bucket] ?? 0) + 1;
  }

  /** All numbers. */
  gains(): readonly DnsGain[] {
    return [...this.#sets.values()];
  }

  add({ labels, requests, forwarded, failures, seconds, buckets }: DnsGain): void {
    const series = this.#of(labels);
    series.requests += requests;
    series.forwarded += forwarded;
    series.failures += failures;
    series.seconds += seconds;
    for (const [at, count] of buckets.entries()) series.buckets[at] = (series.buckets[at] ?? 0) + count;
  }

  families(): readonly Family[] {
    const all = [...this.#sets.values()];
    const forwarded = all.filter((series) => series.forwarded > 0);
    return [
      counter('requests_total', 'Total number of DNS requests', all, ({ requests }) => requests),
      counter(
        'upstream_requests_total',
        'Total number of DNS requests forwarded to upstream',
        forwarded,
        (s) => s.forwarded,
      ),
      counter(
        'upstream_failures_total',
        'Total number of DNS requests for which the upstream gave an error, no record, or no answer',
        forwarded.filter(({ failures }) => failures > 0),
        ({ failures }) => failures,
      ),
      {
        name: `${PREFIX}upstream_request_duration_seconds`,
        help: 'Time that forwarded DNS requests took (unstable).',
        type: 'histogram',
        unit: 'seconds',
        samples: forwarded.flatMap(histogram),
      },
    ];
  }

  #of(labels: DnsLabels): DnsSeries {
    const key = Object.values(labels).join('\n');
    const known = this.#sets.get(key);
    if (known !== undefined) return known;
    const series = new DnsSeries(labels);
    this.#sets.set(key, series);
    return series;
  }
}

function counter(
  name: string,
  help: string,
  all: readonly DnsSeries[],
  valueOf: (series: DnsSeries) => number,
): Family {
  const samples = all.map((series) => ({ labels: series.labels, value: valueOf(series) }));
  return { name: `${PREFIX}${name}`, help: `${help} (unstable).`, type: 'counter', samples };
}

function histogram({ labels, seconds, forwarded, buckets }: DnsSeries): Sample[] {
  const metric = `${PREFIX}upstream_request_duration_seconds`;
  let sum = 0;
  return [
    { metricName: `${metric}_sum`, labels, value: seconds },
    { metricName: `${metric}_count`, labels, value: forwarded },
    ...BUCKETS.map((le, i) => {
      sum += buckets[i] ?? 0;
      return { metricName: `${metric}_bucket`, labels: { le, ...labels }, value: sum };
    }),
  ];
}
