/**
 * Whether a figure grows with time: the slope of Theil and Sen (the median of the slopes of all pairs, which outliers do not
 * move) with the confidence interval of Sen (1968), which needs no normal noise, widened as much as neighbouring samples are alike.
 */

export interface Slope {
  readonly perHour: number;
  /** 95 % interval. */
  readonly lowest: number;
  readonly highest: number;
}

const HOUR_MS = 3_600_000;
/** Two-sided 95 %. */
const Z = 1.96;
/** All pairs of them are a million. */
const MAX_POINTS = 1_400;

/** Points are (ms, value); `undefined` with less than three. Of very many, evenly chosen ones count. */
export function slopeOf(series: readonly (readonly [number, number])[]): Slope | undefined {
  const step = Math.ceil(series.length / MAX_POINTS);
  const points = series.filter((_, at) => at % step === 0);
  const n = points.length;
  if (n < 3) return undefined;
  const slopes: number[] = [];
  for (const [at, [ms, value]] of points.entries()) {
    for (const [laterMs, later] of points.slice(at + 1)) slopes.push(((later - value) / (laterMs - ms)) * HOUR_MS);
  }
  const sorted = Float64Array.from(slopes).sort();
  const pick = (rank: number): number => sorted[Math.min(sorted.length - 1, Math.max(0, Math.round(rank)))] ?? 0;
  const middle = (sorted.length - 1) / 2;
  const perHour = (pick(Math.floor(middle)) + pick(Math.ceil(middle))) / 2;
  const likeness = likenessOf(points.map(([ms, value]) => value - (perHour * ms) / HOUR_MS));
  const spread = Z * Math.sqrt(((n * (n - 1) * (2 * n + 5)) / 18) * ((1 + likeness) / (1 - likeness)));
  return {
    perHour,
    lowest: pick((sorted.length - spread) / 2 - 1),
    highest: pick((sorted.length + spread) / 2),
  };
}

/** Autocorrelation at lag 1, from 0 to 0.9. */
function likenessOf(residuals: readonly number[]): number {
  const mean = residuals.reduce((sum, value) => sum + value, 0) / residuals.length;
  let [products, squares] = [0, 0];
  for (const [at, value] of residuals.entries()) {
    squares += (value - mean) ** 2;
    products += (value - mean) * ((residuals[at + 1] ?? mean) - mean);
  }
  return squares === 0 ? 0 : Math.min(0.9, Math.max(0, products / squares));
}
