/** The chart of the README: one small bar chart per figure. */
import type { ColumnName } from '../columns/column.ts';
import { type MetricName, metric } from '../metrics.ts';
import { compare, formatted, type Results, type Row } from './comparison.ts';
import { type Conditions, machineLine } from './machine.ts';
import { escaped, MARGIN, renderSvg, WIDTH } from './svg.ts';

/** Those a reader compares proxies by; the table has the rest. */
const CHARTED: readonly MetricName[] = [
  'upGbps1',
  'downGbps1',
  'upGbps8',
  'downGbps8',
  'p50Us1',
  'p99Us1',
  'requestsPerSecond',
  'p99Us64',
  'connectionsPerSecond',
  'cpuPerGib',
  'cpuPer100k',
  'idleKib',
];
const ACROSS = 3;
const HEADER_HEIGHT = 98;
const BAR_HEIGHT = 16;
const BAR_PITCH = 22;
const LABEL_WIDTH = 58;
const VALUE_WIDTH = 62;
const TITLE_HEIGHT = 44;

const STYLE = {
  light: '.haproxy { fill: #7d96b8 } .nginx { fill: #6fa58b } .culvert { fill: #d9622b } .baseline { fill: #e3b341 }',
  dark: '.haproxy { fill: #5b7aa6 } .nginx { fill: #4f8a70 } .culvert { fill: #ee7f45 }',
};

interface Box {
  readonly x: number;
  readonly y: number;
  readonly width: number;
}

function bar(row: Row, column: ColumnName, box: Box): string {
  const value = row.medians.get(column);
  if (value === undefined) return '';
  const room = box.width - LABEL_WIDTH - VALUE_WIDTH;
  const longest = Math.max(...[...row.medians].map(([name, each]) => (name === 'direct' ? 0 : each)));
  const length = Math.max(1, (Math.max(0, value) / longest) * room);
  const textY = box.y + BAR_HEIGHT - 4;
  const barX = box.x + LABEL_WIDTH;
  return `<text x="${box.x}" y="${textY}"${column === 'culvert' ? ' class="title"' : ''}>${column}</text>
<rect class="${column}" x="${barX}" y="${box.y}" width="${length.toFixed(1)}" height="${BAR_HEIGHT}" rx="2"/>
<text x="${(barX + length + 6).toFixed(1)}" y="${textY}">${formatted(row.name, value)}</text>`;
}

/** No proxy at all is another league: its figure is a note, so that the bars compare proxies. */
function noteOf(row: Row): string {
  const direct = row.medians.get('direct');
  const way = metric(row.name).better === 'more' ? 'longer is better' : 'shorter is better';
  return direct === undefined ? way : `${way}; with no proxy ${formatted(row.name, direct)}`;
}

function panel(row: Row, columns: readonly ColumnName[], box: Box): string {
  const { title, unit } = metric(row.name);
  const heading = `<text class="title" x="${box.x}" y="${box.y + 12}">${escaped(title)}, ${unit}</text>
<text class="note" x="${box.x}" y="${box.y + 28}">${noteOf(row)}</text>`;
  const bars = columns.map((column, at) => bar(row, column, { ...box, y: box.y + TITLE_HEIGHT - 6 + at * BAR_PITCH }));
  return [heading, ...bars].join('\n');
}

export function renderChart(results: Results, machine: Conditions): string {
  const columns = [...results.keys()].filter((column) => column !== 'direct');
  const rows = compare(results).filter((row) => CHARTED.includes(row.name));
  const panelHeight = TITLE_HEIGHT + columns.length * BAR_PITCH + 14;
  const panelWidth = (WIDTH - MARGIN * (ACROSS + 1)) / ACROSS;
  const height = HEADER_HEIGHT + Math.ceil(rows.length / ACROSS) * panelHeight + MARGIN;
  const panels = rows.map((row, at) => {
    const x = MARGIN + (at % ACROSS) * (panelWidth + MARGIN);
    const y = HEADER_HEIGHT + Math.floor(at / ACROSS) * panelHeight;
    return panel(row, columns, { x, y, width: panelWidth });
  });
  return renderSvg({
    height,
    label: 'Culvert compared with HAProxy and nginx mTLS pairs',
    title: 'Two nodes, mutual TLS 1.3 between them, medians of one interleaved run',
    notes: machineLine(machine).split('; '),
    style: STYLE,
    body: panels.join('\n'),
  });
}
