/** The soak must be able to fail: what grows is told from what is noisy, settles, or is bounded. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Sample } from '../../bench/soak/samples.ts';
import { slopeOf } from '../../bench/soak/slope.ts';
import { findingsOf } from '../../bench/soak/verdict.ts';

const MINUTE_MS = 60_000;
const STEP_MS = 5_000;

/** Repeatable noise of -1 to 1. */
function noise(at: number): number {
  return 2 * ((Math.sin(at * 12.9898) * 43758.5453) % 1);
}

/** Twenty minutes of one figure. */
function samplesOf(figure: string, valueAt: (ms: number, at: number) => number, minutes = 20): Sample[] {
  return Array.from({ length: (minutes * MINUTE_MS) / STEP_MS }, (_, at) => {
    return { atMs: at * STEP_MS, agents: { n1: { [figure]: valueAt(at * STEP_MS, at) } } };
  });
}

const perHour = (rate: number, ms: number): number => (rate * ms) / (60 * MINUTE_MS);

const cases: readonly {
  readonly claim: string;
  readonly figure: string;
  readonly valueAt: (ms: number, at: number) => number;
  readonly isGrowing: boolean;
}[] = [
  {
    claim: 'a timer left behind each minute grows',
    figure: 'timers',
    valueAt: (ms) => 40 + ms / MINUTE_MS,
    isGrowing: true,
  },
  {
    claim: 'entries left behind each minute grow, in four times the noise',
    figure: 'entries: connections',
    valueAt: (ms, at) => 100 + ms / MINUTE_MS + 4 * noise(at),
    isGrowing: true,
  },
  {
    claim: 'memory that grows by 120 MiB per hour grows',
    figure: 'RSS, MiB',
    valueAt: (ms, at) => 150 + perHour(120, ms) + 3 * noise(at),
    isGrowing: true,
  },
  { claim: 'noise alone does not grow', figure: 'timers', valueAt: (_, at) => 40 + 10 * noise(at), isGrowing: false },
  {
    claim: 'memory that finds its size in the first five minutes does not grow',
    figure: 'RSS, MiB',
    valueAt: (ms, at) => 200 - 80 * Math.exp(-ms / MINUTE_MS) + noise(at),
    isGrowing: false,
  },
  { claim: 'what falls does not grow', figure: 'heap, MiB', valueAt: (ms) => 90 - perHour(30, ms), isGrowing: false },
  {
    claim: 'a cache that fills to its bound is no growth',
    figure: 'cached: identities',
    valueAt: (ms) => ms / 1_000,
    isGrowing: false,
  },
];

for (const { claim, figure, valueAt, isGrowing } of cases) {
  test(claim, () => {
    const findings = findingsOf(samplesOf(figure, valueAt));
    assert.deepEqual(
      findings.map((finding) => [finding.figure, finding.isGrowing]),
      [[figure, isGrowing]],
    );
  });
}

test('of a few minutes nothing is said', () => {
  assert.deepEqual(findingsOf(samplesOf('timers', (ms) => ms, 5)), []);
});

test('a slope is the median of those of all pairs: a few outliers do not move it', () => {
  const series = Array.from({ length: 100 }, (_, at) => [at * 36_000, at % 17 === 0 ? 1e6 : 5 * at] as const);
  const slope = slopeOf(series);
  assert(slope !== undefined && Math.abs(slope.perHour - 500) < 25, JSON.stringify(slope));
  assert(slope.lowest <= 500 && slope.highest >= 500, JSON.stringify(slope));
});

test('a hundred thousand points take no more than a thousand do', () => {
  const series = Array.from({ length: 100_000 }, (_, at) => [at * 1_000, at] as const);
  assert.equal(Math.round(slopeOf(series)?.perHour ?? 0), 3_600);
});
