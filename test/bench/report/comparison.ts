/** Medians of every column, and how Culvert stands against the better peer. */
import type { ColumnName } from '../columns/column.ts';
import { METRIC_NAMES, type MetricName, metric, type Samples } from '../metrics.ts';

export type Results = ReadonlyMap<ColumnName, Samples>;

export interface Row {
  readonly name: MetricName;
  readonly medians: ReadonlyMap<ColumnName, number>;
  /** Culvert's median divided by the better peer's; absent when either is missing. */
  readonly ratio: number | undefined;
  readonly isMet: boolean | undefined;
}

export function compare(results: Results): Row[] {
  return METRIC_NAMES.map((name) => row(name, results)).filter((each) => each.medians.size > 0);
}

function row(name: MetricName, results: Results): Row {
  const medians = new Map<ColumnName, number>();
  for (const [column, samples] of results) {
    const value = samples.median(name);
    if (value !== undefined) medians.set(column, value);
  }
  const ours = medians.get('culvert');
  const best = betterPeer(name, medians);
  const ratio = ours === undefined || best === undefined ? undefined : ours / best;
  return { name, medians, ratio, isMet: isMet(name, ours, ratio) };
}

function betterPeer(name: MetricName, medians: ReadonlyMap<ColumnName, number>): number | undefined {
  const peers = [medians.get('haproxy'), medians.get('nginx')].filter((value) => value !== undefined);
  if (peers.length === 0) return undefined;
  return metric(name).better === 'more' ? Math.max(...peers) : Math.min(...peers);
}

function isMet(name: MetricName, ours: number | undefined, ratio: number | undefined): boolean | undefined {
  const { targetRatio, targetValue, better } = metric(name);
  if (targetValue !== undefined) return ours === undefined ? undefined : ours <= targetValue;
  if (targetRatio === undefined || ratio === undefined) return undefined;
  return better === 'more' ? ratio >= targetRatio : ratio <= targetRatio;
}

export function target(name: MetricName): string {
  const { targetRatio, targetValue, better, unit } = metric(name);
  if (targetValue !== undefined) return `≤ ${targetValue} ${unit}`;
  if (targetRatio === undefined) return '';
  return `${better === 'more' ? '≥' : '≤'} ${targetRatio.toFixed(1)}×`;
}

export function formatted(name: MetricName, value: number | undefined): string {
  if (value === undefined) return '–';
  const { digits } = metric(name);
  return value.toLocaleString('en-US', { minimumFractionDigits: digits, maximumFractionDigits: digits });
}
