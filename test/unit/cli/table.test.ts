import assert from 'node:assert/strict';
import { test } from 'node:test';
import { renderTable } from '../../../src/cli/table.ts';
import { textWidth } from '../../../src/cli/text-width.ts';

const widths: readonly (readonly [text: string, columns: number])[] = [
  ['', 0],
  ['plain text', 10],
  ['Größe', 5],
  ['Gro\u0308ße', 5],
  ['→ …', 3],
  ['日本語', 6],
  ['한국', 4],
  ['ﾊﾝｶｸ', 4],
  ['ＡＢ', 4],
  ['🚀 go', 5],
];

for (const [text, columns] of widths) {
  test(`${JSON.stringify(text)} takes ${columns} columns`, () => assert.equal(textWidth(text), columns));
}

test('columns stay aligned below wide characters', () => {
  const table = renderTable(
    ['NAME', 'NODE'],
    [
      ['購物車', 'n1'],
      ['cart', 'n2'],
    ],
    false,
  );
  assert.equal(table, 'NAME     NODE\n購物車   n1\ncart     n2\n');
});
