/** Judges the samples of a soak: what grows with time, and what did not come back. */
import { COLLECT_MS } from '../../support/garbage-preload.ts';
import { isBounded, type Sample, seriesOf } from './samples.ts';
import { type Slope, slopeOf } from './slope.ts';

/** Code is compiled, heaps find their size and caches fill in this share of the time, and in no less than this. */
const WARM_UP_SHARE = 1 / 3;
const MIN_WARM_UP_MS = 120_000;
/** Less is noise: nothing is said about slopes then. */
const MIN_JUDGED_MS = 300_000;

/**
 * Growth per hour that is taken for none. One object of a kind that is left behind every five minutes is over it. The code of
 * three threads grows by 20 MiB in the first hour, by ever less later.
 */
const ALLOWED: Readonly<Record<string, number>> = {
  'RSS, MiB': 48,
  'RSS less code, MiB': 24,
  'heap, MiB': 8,
  'external, MiB': 4,
};
const ALLOWED_COUNT = 12;

export interface Finding {
  readonly node: string;
  readonly figure: string;
  /** Medians of the first and the last tenth after the warm-up. */
  readonly first: number;
  readonly last: number;
  readonly slope: Slope;
  /** Per hour; absent where a bound is part of the design. */
  readonly allowed?: number;
  /** Even the flattest slope of the interval is over what is allowed. */
  readonly isGrowing: boolean;
}

/** Empty when the soak was too short. */
export function findingsOf(samples: readonly Sample[]): readonly Finding[] {
  const judged = afterWarmUp(samples);
  if (judged.length === 0) return [];
  const last = judged.at(-1)?.agents ?? {};
  return Object.entries(last).flatMap(([node, reading]) =>
    Object.keys(reading).flatMap((figure) => findingOf(judged, node, figure) ?? []),
  );
}

export function warmUpMs(totalMs: number): number {
  return Math.max(MIN_WARM_UP_MS, totalMs * WARM_UP_SHARE);
}

function afterWarmUp(samples: readonly Sample[]): readonly Sample[] {
  const totalMs = samples.at(-1)?.atMs ?? 0;
  const fromMs = warmUpMs(totalMs);
  return totalMs - fromMs < MIN_JUDGED_MS ? [] : samples.filter(({ atMs }) => atMs >= fromMs);
}

function findingOf(samples: readonly Sample[], node: string, figure: string): Finding | undefined {
  const all = seriesOf(samples, node, figure);
  const series = isMemory(figure) ? floorsOf(all) : all;
  const slope = slopeOf(series);
  if (slope === undefined) return undefined;
  const values = series.map(([, value]) => value);
  const tenth = Math.ceil(values.length / 10);
  const ends = { first: median(values.slice(0, tenth)), last: median(values.slice(-tenth)) };
  if (isBounded(figure)) return { node, figure, ...ends, slope, isGrowing: false };
  const allowed = ALLOWED[figure] ?? ALLOWED_COUNT;
  return { node, figure, ...ends, slope, allowed, isGrowing: slope.lowest > allowed };
}

function isMemory(figure: string): boolean {
  return figure.endsWith(', MiB');
}

/** The least of each time between two collections: what is above it is garbage. */
function floorsOf(series: readonly (readonly [number, number])[]): readonly (readonly [number, number])[] {
  const windows = Map.groupBy(series, ([ms]) => Math.floor(ms / (2 * COLLECT_MS)));
  return [...windows].map(([window, points]) => {
    return [window * 2 * COLLECT_MS, Math.min(...points.map(([, value]) => value))] as const;
  });
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? 0;
}
