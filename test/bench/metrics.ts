/** The rows of the table: what each figure is, which way is better, and the target it is held to. */

export interface Metric {
  readonly title: string;
  readonly unit: string;
  readonly digits: number;
  readonly better: 'more' | 'less';
  /** Bound on Culvert divided by the better peer: a floor where more is better, a ceiling where less is. */
  readonly targetRatio?: number;
  /** Bound on Culvert's own figure, whatever the peers do. */
  readonly targetValue?: number;
}

export const METRICS = {
  upGbps1: { title: 'up, 1 connection', unit: 'Gbit/s', digits: 2, better: 'more', targetRatio: 1 },
  downGbps1: { title: 'down, 1 connection', unit: 'Gbit/s', digits: 2, better: 'more', targetRatio: 1 },
  upGbps8: { title: 'up, 8 connections', unit: 'Gbit/s', digits: 2, better: 'more', targetRatio: 1 },
  downGbps8: { title: 'down, 8 connections', unit: 'Gbit/s', digits: 2, better: 'more', targetRatio: 1 },
  p50Us1: { title: 'p50 of 1 KiB, 1 connection', unit: 'µs', digits: 0, better: 'less', targetRatio: 1 },
  p99Us1: { title: 'p99 of 1 KiB, 1 connection', unit: 'µs', digits: 0, better: 'less', targetRatio: 1 },
  requestsPerSecond: { title: 'requests, 64 connections', unit: '1/s', digits: 0, better: 'more', targetRatio: 1 },
  p99Us64: { title: 'p99 of 1 KiB, 64 connections', unit: 'µs', digits: 0, better: 'less', targetRatio: 1 },
  connectionsPerSecond: { title: 'new connections', unit: '1/s', digits: 0, better: 'more', targetRatio: 1.3 },
  cpuPerGib: { title: 'CPU per GiB', unit: 's', digits: 2, better: 'less', targetRatio: 1.2 },
  cpuPer100k: {
    title: 'CPU per 100k requests',
    unit: 's',
    digits: 2,
    better: 'less',
    targetRatio: 1.2,
  },
  cpuPer1kConnections: { title: 'CPU per 1k new connections', unit: 's', digits: 2, better: 'less' },
  rssStartMib: { title: 'RSS at start, both proxies', unit: 'MiB', digits: 0, better: 'less' },
  idleKib: {
    title: 'per idle connection, both proxies',
    unit: 'KiB',
    digits: 1,
    better: 'less',
    targetValue: 20,
  },
  idleLargerKib: {
    title: 'per idle connection, larger proxy',
    unit: 'KiB',
    digits: 1,
    better: 'less',
  },
  rssIdleMib: { title: 'RSS warmed up, idle, both', unit: 'MiB', digits: 0, better: 'less' },
  rssAfterLoadMib: { title: 'RSS after load, both proxies', unit: 'MiB', digits: 0, better: 'less' },
  rssAfterOverIdle: {
    title: 'RSS after load / warmed up',
    unit: '×',
    digits: 2,
    better: 'less',
    targetValue: 1.1,
  },
} as const satisfies Record<string, Metric>;

export type MetricName = keyof typeof METRICS;
export const METRIC_NAMES = Object.keys(METRICS) as MetricName[];

/** As `Metric`, with the optional fields visible whatever the row states. */
export function metric(name: MetricName): Metric {
  return METRICS[name];
}

/** Every sample of one column, by metric; the report takes medians. */
export class Samples {
  readonly #values = new Map<MetricName, number[]>();

  add(name: MetricName, value: number): void {
    this.#values.set(name, [...(this.#values.get(name) ?? []), value]);
  }

  of(name: MetricName): readonly number[] {
    return this.#values.get(name) ?? [];
  }

  median(name: MetricName): number | undefined {
    return median(this.of(name));
  }
}

export function median(values: readonly number[]): number | undefined {
  const sorted = values.toSorted((a, b) => a - b);
  const upper = sorted[Math.floor(sorted.length / 2)];
  const lower = sorted[Math.floor((sorted.length - 1) / 2)];
  return upper === undefined || lower === undefined ? undefined : (upper + lower) / 2;
}
