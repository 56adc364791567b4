/** Aligned columns: colours on a terminal, the same text without them in a pipe. */
import { textWidth } from './text-width.ts';

type Colour = 'green' | 'yellow' | 'red' | 'dim';

/** A cell that wants a colour. */
interface ColouredCell {
  readonly text: string;
  readonly colour: Colour;
}

export type Cell = string | ColouredCell;

const CODES: Readonly<Record<Colour, number>> = { green: 32, yellow: 33, red: 31, dim: 2 };
const BOLD = 1;
const GAP = '   ';

/** Columns three spaces apart; no blank at a line's end, so that a pipe gets plain words. */
export function renderTable(
  header: readonly string[],
  rows: readonly (readonly Cell[])[],
  isColoured: boolean,
): string {
  const widths = header.map((title) => title.length);
  for (const row of rows) {
    for (const [column, cell] of row.entries()) {
      widths[column] = Math.max(widths[column] ?? 0, textWidth(printable(textOf(cell))));
    }
  }
  const head = header.map((title, column) => pad(title, paint(title, BOLD, isColoured), widths[column] ?? 0));
  const body = rows.map((row) => row.map((cell, column) => renderCell(cell, widths[column] ?? 0, isColoured)));
  return [head, ...body].map((cells) => `${cells.join(GAP).trimEnd()}\n`).join('');
}

/** `Name   value` lines with aligned values. */
export function renderFacts(facts: readonly (readonly [string, Cell])[], isColoured: boolean): string {
  const width = Math.max(...facts.map(([name]) => name.length));
  return facts
    .map(([name, cell]) => `${pad(name, paint(name, BOLD, isColoured), width)}${GAP}${renderCell(cell, 0, isColoured)}`)
    .map((line) => `${line.trimEnd()}\n`)
    .join('');
}

/** Peers choose some of what is shown: control characters must not reach a terminal. */
function printable(text: string): string {
  return text.replace(/[^\P{C}]|[\u2028\u2029]/gu, (character) => {
    return `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`;
  });
}

function renderCell(cell: Cell, width: number, isColoured: boolean): string {
  const text = printable(textOf(cell));
  return pad(text, typeof cell === 'string' ? text : paint(text, CODES[cell.colour], isColoured), width);
}

function textOf(cell: Cell): string {
  return typeof cell === 'string' ? cell : cell.text;
}

/** Colour codes take no room on the screen, so the width is that of the bare text. */
function pad(text: string, painted: string, width: number): string {
  return painted + ' '.repeat(Math.max(0, width - textWidth(text)));
}

function paint(text: string, code: number, isColoured: boolean): string {
  return isColoured && text !== '' ? `\u001b[${code}m${text}\u001b[0m` : text;
}
