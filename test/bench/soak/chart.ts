/** A line chart per figure over the time of a soak, one line per agent; the warm-up is shaded. */
import { escaped, MARGIN, renderSvg, WIDTH } from '../report/svg.ts';
import { type Sample, seriesOf } from './samples.ts';
import { warmUpMs } from './verdict.ts';

const ACROSS = 3;
const TOP = 84;
const PLOT_HEIGHT = 84;
const PANEL_HEIGHT = PLOT_HEIGHT + 52;
const PANEL_WIDTH = (WIDTH - MARGIN * (ACROSS + 1)) / ACROSS;
const COLOURS = ['one', 'two'] as const;
const STYLE = {
  light: `.one { stroke: #d9622b } .two { stroke: #4a78b0 } polyline { fill: none; stroke-width: 1.5 }
  .plot { fill: #f3f4f6 } .warm { fill: #e4e7eb }`,
  dark: '.one { stroke: #ee7f45 } .two { stroke: #7fa8dc } .plot { fill: #1c2128 } .warm { fill: #2a3038 }',
};

interface Box {
  readonly x: number;
  readonly y: number;
}

export function renderSoakChart(samples: readonly Sample[], notes: readonly string[]): string {
  const nodes = Object.keys(samples.at(-1)?.agents ?? {});
  const figures = [...new Set(nodes.flatMap((node) => Object.keys(samples.at(-1)?.agents[node] ?? {})))];
  const panels = figures.map((figure, at) => {
    const x = MARGIN + (at % ACROSS) * (PANEL_WIDTH + MARGIN);
    return panel(samples, nodes, figure, { x, y: TOP + Math.floor(at / ACROSS) * PANEL_HEIGHT });
  });
  const key = nodes.map((node, at) => `${node} ${at === 0 ? 'orange' : 'blue'}`).join(', ');
  return renderSvg({
    height: TOP + Math.ceil(figures.length / ACROSS) * PANEL_HEIGHT + MARGIN,
    label: 'What two agents hold during a soak',
    title: 'What two agents hold while everything around them changes',
    notes: [...notes, `From zero; the dark part is the warm-up; ${key}.`],
    style: STYLE,
    body: panels.join('\n'),
  });
}

function panel(samples: readonly Sample[], nodes: readonly string[], figure: string, { x, y }: Box): string {
  const lines = nodes.map((node) => seriesOf(samples, node, figure));
  const most = Math.max(1, ...lines.flatMap((line) => line.map(([, value]) => value)));
  const totalMs = samples.at(-1)?.atMs ?? 1;
  const plotY = y + 20;
  const point = ([ms, value]: readonly [number, number]): string => {
    const [left, up] = [(ms / totalMs) * PANEL_WIDTH, (value / most) * (PLOT_HEIGHT - 6)];
    return `${(x + left).toFixed(1)},${(plotY + PLOT_HEIGHT - up).toFixed(1)}`;
  };
  const ends = lines.map((line) => numberText(line.at(-1)?.[1] ?? 0)).join(' and ');
  const warmWidth = Math.min(1, warmUpMs(totalMs) / totalMs) * PANEL_WIDTH;
  return `<text class="title" x="${x}" y="${y + 12}">${escaped(figure)}</text>
<rect class="plot" x="${x}" y="${plotY}" width="${PANEL_WIDTH.toFixed(1)}" height="${PLOT_HEIGHT}"/>
<rect class="warm" x="${x}" y="${plotY}" width="${warmWidth.toFixed(1)}" height="${PLOT_HEIGHT}"/>
${lines.map((line, at) => `<polyline class="${COLOURS[at % COLOURS.length]}" points="${line.map(point).join(' ')}"/>`).join('\n')}
<text class="note" x="${x}" y="${plotY + PLOT_HEIGHT + 14}">at the end ${ends}; top ${numberText(most)}</text>`;
}

export function numberText(value: number): string {
  return value.toLocaleString('en', { maximumFractionDigits: value < 100 ? 1 : 0 });
}
