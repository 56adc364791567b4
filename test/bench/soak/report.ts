/** How a soak is told: a line while it runs; a table of slopes and a verdict at its end; all of it as JSON. */
import { numberText } from './chart.ts';
import type { Ledger } from './ledger.ts';
import type { Sample } from './samples.ts';
import type { SoakReport } from './soak.ts';
import { type Finding, findingsOf } from './verdict.ts';

export function progressText({ atMs, agents }: Sample, { counts, failed }: Ledger, minutes: number): string {
  const memory = Object.entries(agents).map(([node, reading]) => `${node} ${numberText(reading['RSS, MiB'] ?? 0)} MiB`);
  const sum = (...names: readonly string[]): number => names.reduce((all, name) => all + (counts[name] ?? 0), 0);
  const calls = sum(...Object.keys(counts).filter((name) => name.startsWith('calls')));
  const done = [
    `${numberText(calls)} calls`,
    `${numberText(sum('streams ended', 'streams reset'))} streams`,
    `${numberText(sum('pods added and deleted'))} pods`,
    `${numberText(sum('policies applied and removed'))} policies`,
    `${numberText(sum('roots rotated'))} roots`,
    `${numberText(sum('control plane lost'))} outages`,
  ];
  return `${clock(atMs)} of ${clock(minutes * 60_000)}  ${done.join(', ')}; ${memory.join(', ')}; ${failed} failures`;
}

function clock(ms: number): string {
  const seconds = Math.round(ms / 1_000);
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, '0')}`;
}

export interface Verdict {
  readonly findings: readonly Finding[];
  readonly isGood: boolean;
  readonly text: string;
}

export function verdictOf(report: SoakReport): Verdict {
  const findings = findingsOf(report.samples);
  const growing = findings.filter(({ isGrowing }) => isGrowing);
  const parts = [
    report.failed === 0 ? 'nothing failed, every byte came back, and all was given back' : `${report.failed} failures`,
    findings.length === 0
      ? 'too short to judge slopes'
      : growing.length === 0
        ? 'nothing grows with time'
        : `grows with time: ${growing.map(({ node, figure }) => `${figure} of ${node}`).join(', ')}`,
  ];
  const isGood = report.failed === 0 && growing.length === 0;
  return { findings, isGood, text: `${isGood ? 'ok' : 'FAILED'}: ${parts.join('; ')}` };
}

/** Markdown too, so that the README can hold it as printed. */
export function renderSlopes(findings: readonly Finding[]): string {
  const header = ['agent', 'figure', 'first', 'last', 'per hour', '95 % of slopes', 'allowed', ''];
  const rows = findings.map(({ node, figure, first, last, slope, allowed, isGrowing }) => [
    node,
    figure,
    numberText(first),
    numberText(last),
    signed(slope.perHour),
    `${signed(slope.lowest)} to ${signed(slope.highest)}`,
    allowed === undefined ? 'bounded' : `+${numberText(allowed)}`,
    isGrowing ? 'GROWS' : '',
  ]);
  const widths = header.map((title, at) => Math.max(...[header, ...rows].map((row) => (row[at] ?? title).length)));
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell, at) => (at < 2 ? cell.padEnd(widths[at] ?? 0) : cell.padStart(widths[at] ?? 0))).join(' | ')} |`;
  const rule = `|${widths.map((width, at) => (at < 2 ? `:${'-'.repeat(width + 1)}` : `${'-'.repeat(width + 1)}:`)).join('|')}|`;
  return [line(header), rule, ...rows.map(line)].join('\n');
}

export function renderCounts(report: SoakReport): string {
  return Object.entries(report.counts)
    .map(([what, count]) => `${numberText(count)} ${what}`)
    .join(', ');
}

function signed(value: number): string {
  return `${value > 0 ? '+' : ''}${numberText(Math.abs(value) < 0.05 ? 0 : value)}`;
}
