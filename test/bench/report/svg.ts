/** What the charts of the README share: SVG by hand, legible on a light and on a dark page. */

export const WIDTH = 960;
export const MARGIN = 16;

export interface Picture {
  readonly height: number;
  /** For who cannot see it. */
  readonly label: string;
  readonly title: string;
  /** Lines under the title. */
  readonly notes: readonly string[];
  /** Of the classes in `body`, on a light page and, where different, on a dark one. */
  readonly style: { readonly light: string; readonly dark: string };
  readonly body: string;
}

export function escaped(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}

export function renderSvg({ height, label, title, notes, style, body }: Picture): string {
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" role="img" aria-label="${escaped(label)}">
<style>
  text { font: 12px system-ui, sans-serif; fill: #1f2328 }
  .title { font-weight: 600; font-size: 13px } .head { font-weight: 600; font-size: 16px } .note { fill: #59636e; font-size: 11px }
  ${style.light}
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .note { fill: #9198a1 }
    ${style.dark}
  }
</style>
<text class="head" x="${MARGIN}" y="24">${escaped(title)}</text>
${notes.map((part, at) => `<text class="note" x="${MARGIN}" y="${42 + at * 15}">${escaped(part)}</text>`).join('\n')}
${body}
</svg>
`;
}
