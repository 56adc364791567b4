/** The table on the terminal; it is Markdown too, so that the README can hold it as printed. */
import type { ColumnName } from '../columns/column.ts';
import { metric } from '../metrics.ts';
import { compare, formatted, type Results, type Row, target } from './comparison.ts';

function cells(row: Row, columns: readonly ColumnName[]): string[] {
  const { title, unit } = metric(row.name);
  const values = columns.map((column) => formatted(row.name, row.medians.get(column)));
  const ratio = row.ratio === undefined ? '' : `${row.ratio.toFixed(2)}×`;
  const verdict = row.isMet === undefined ? '' : row.isMet ? ' met' : ' missed';
  return [`${title}, ${unit}`, ...values, ratio, target(row.name) + verdict];
}

export function renderTable(results: Results): string {
  const columns = [...results.keys()];
  const header = ['', ...columns, 'Culvert / better peer', 'target'];
  return markdownTable(
    header,
    compare(results).map((row) => cells(row, columns)),
  );
}

export function markdownTable(header: readonly string[], body: readonly (readonly string[])[]): string {
  const widths = header.map((title, at) => Math.max(...[header, ...body].map((line) => (line[at] ?? title).length)));
  const line = (texts: readonly string[]): string =>
    `| ${texts.map((text, at) => (at === 0 ? text.padEnd(widths[at] ?? 0) : text.padStart(widths[at] ?? 0))).join(' | ')} |`;
  const rule = `|${widths.map((width, at) => (at === 0 ? `:${'-'.repeat(width + 1)}` : `${'-'.repeat(width + 1)}:`)).join('|')}|`;
  return [line(header), rule, ...body.map(line)].join('\n');
}
