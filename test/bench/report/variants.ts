/** The second table: Culvert in several ways, a row each, and what becomes of two promises. Empty without a variant. */
import { type ColumnName, isVariant } from '../columns/column.ts';
import { type MetricName, metric } from '../metrics.ts';
import { formatted, type Results } from './comparison.ts';
import { markdownTable } from './table.ts';

const FIGURES = [
  'upGbps1',
  'downGbps1',
  'upGbps8',
  'downGbps8',
  'requestsPerSecond',
  'p99Us64',
  'p50Us1',
  'p99Us1',
  'connectionsPerSecond',
  'cpuPerGib',
  'cpuPer100k',
] as const satisfies readonly MetricName[];

const TITLES: Partial<Record<ColumnName, string>> = {
  culvert: 'two nodes, 1 worker',
  'two-workers': 'two nodes, 2 workers each',
  'same-node': 'one node, HBONE',
  'short-cut': 'one node, short cut',
};

interface Promised {
  readonly what: string;
  readonly figure: MetricName;
  readonly of: ColumnName;
  readonly over: ColumnName;
  readonly floor: number;
}

const PROMISES: readonly Promised[] = [
  {
    what: 'requests with 2 workers over 1',
    figure: 'requestsPerSecond',
    of: 'two-workers',
    over: 'culvert',
    floor: 1.6,
  },
  { what: 'short cut over HBONE, up, 1 connection', figure: 'upGbps1', of: 'short-cut', over: 'same-node', floor: 2 },
  {
    what: 'short cut over HBONE, down, 1 connection',
    figure: 'downGbps1',
    of: 'short-cut',
    over: 'same-node',
    floor: 2,
  },
  { what: 'short cut over HBONE, up, 8 connections', figure: 'upGbps8', of: 'short-cut', over: 'same-node', floor: 2 },
];

export function renderVariants(results: Results, cores: number): string {
  const names = [...results.keys()].filter((name) => TITLES[name] !== undefined);
  if (!names.some(isVariant)) return '';
  const figures = FIGURES.filter((figure) => names.some((name) => results.get(name)?.median(figure) !== undefined));
  const header = ['Culvert', ...figures.map((figure) => `${metric(figure).title}, ${metric(figure).unit}`)];
  const rows = names.map((name) => [
    TITLES[name] ?? name,
    ...figures.map((figure) => formatted(figure, results.get(name)?.median(figure))),
  ]);
  // Turned over: so many figures fit no terminal side by side.
  const lines = header.map((title, at) => [title, ...rows.map((row) => row[at] ?? '')]);
  const [titles = [], ...body] = lines;
  const promises = PROMISES.flatMap((promised) => judged(promised, results));
  return [markdownTable(titles, body), '', ...promises, ...remarks(results, cores)].join('\n');
}

function judged({ what, figure, of, over, floor }: Promised, results: Results): string[] {
  const [ours, theirs] = [results.get(of)?.median(figure), results.get(over)?.median(figure)];
  if (ours === undefined || theirs === undefined) return [];
  const ratio = ours / theirs;
  return [`- ${what}: ${ratio.toFixed(2)}× (target ≥ ${floor}×, ${ratio >= floor ? 'met' : 'missed'})`];
}

/** Both agents, load generator and server want a core each before a second worker can find one. */
const CORES_TO_SCALE = 6;

function remarks(results: Results, cores: number): string[] {
  if (!results.has('two-workers') || cores >= CORES_TO_SCALE) return [];
  const taken =
    cores <= 2 ? 'the load generator and the server take the second' : 'load generator and server need some';
  return [
    `- this machine has ${cores} cores, and ${taken}: a second worker has none to run on, so scaling shows on more`,
  ];
}
