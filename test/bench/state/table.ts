/** The figures with their targets, as rows and as a Markdown table. */
import type { Figures } from './figures.ts';

interface Measure {
  readonly title: string;
  readonly unit: string;
  /** At most this; absent = told only. */
  readonly target?: number;
  readonly decimals: number;
}

const MEASURES = {
  readyMs: { title: 'time to ready', unit: 'ms', decimals: 0 },
  rssPerWorkload: { title: 'RSS per workload', unit: 'B', target: 1_536, decimals: 0 },
  heapPerWorkload: { title: 'heap in use per workload', unit: 'B', decimals: 0 },
  hopP50Us: { title: 'next-hop decision, p50', unit: 'µs', decimals: 1 },
  hopP99Us: { title: 'next-hop decision, p99', unit: 'µs', target: 20, decimals: 1 },
  rejudgeMs: { title: '20,000 live connections judged again', unit: 'ms', decimals: 0 },
  longestTurnMs: { title: 'longest turn of the event loop meanwhile', unit: 'ms', target: 20, decimals: 1 },
  longestTurnCpuMs: { title: 'CPU of the most expensive turn', unit: 'ms', decimals: 1 },
} as const satisfies Record<keyof Figures, Measure>;

export interface FigureRow extends Measure {
  readonly name: keyof Figures;
  readonly value: number;
  readonly isMet?: boolean;
}

export function rowsOf(figures: Figures): readonly FigureRow[] {
  const names = Object.keys(MEASURES) as (keyof Figures)[];
  return names.map((name) => {
    const measure: Measure = MEASURES[name];
    const value = figures[name];
    return { name, ...measure, value, ...(measure.target !== undefined && { isMet: value <= measure.target }) };
  });
}

export function renderFigures(figures: Figures): string {
  const lines = rowsOf(figures).map(({ title, unit, value, target, isMet, decimals }) => {
    const verdict = target === undefined ? '' : `≤ ${target.toLocaleString('en')} ${isMet ? 'met' : 'missed'}`;
    return [`${title}, ${unit}`, value.toFixed(decimals), verdict];
  });
  const [header, ...body] = [['', 'measured', 'target'], ...lines];
  const widths = [0, 1, 2].map((at) => Math.max(...[header, ...body].map((line) => line?.[at]?.length ?? 0)));
  const line = (cells: readonly string[] = []): string =>
    `| ${cells.map((cell, at) => (at === 0 ? cell.padEnd(widths[at] ?? 0) : cell.padStart(widths[at] ?? 0))).join(' | ')} |`;
  const rule = `|${widths.map((width, at) => (at === 0 ? `:${'-'.repeat(width + 1)}` : `${'-'.repeat(width + 1)}:`)).join('|')}|`;
  return [line(header), rule, ...body.map(line)].join('\n');
}
