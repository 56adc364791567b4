/** The table of all reason codes, as README.md holds it. Made from `base/reasons.ts`, so it cannot fall behind. */
import { REASONS, type Reason, type ReasonCode } from '../base/reasons.ts';

export type ReasonRow = Reason & { readonly code: ReasonCode };

export function reasonRows(): readonly ReasonRow[] {
  const codes = Object.keys(REASONS) as ReasonCode[];
  return codes.map((code) => ({ code, ...REASONS[code] }));
}

/** A GitHub table, without a line break at the end. */
export function reasonsMarkdown(): string {
  const rows = reasonRows().map(({ code, layer, cause, next }) => `| \`${code}\` | ${layer} | ${cause} | ${next} |`);
  return ['| Code | Layer | What happened | What to do next |', '|---|---|---|---|', ...rows].join('\n');
}
