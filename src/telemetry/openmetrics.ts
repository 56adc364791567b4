/** The exposition format: OpenMetrics 1.0 text, whatever the scraper asked for. Pure. */

export interface Sample {
  /** Absent = the family name (plus `_total` for counters). */
  readonly metricName?: string;
  readonly labels: Readonly<Record<string, string | number>>;
  readonly value: number;
}

export interface Family {
  /** Counters with their `_total`. */
  readonly name: string;
  readonly help: string;
  readonly type: 'counter' | 'gauge' | 'histogram' | 'summary';
  readonly unit?: string;
  readonly samples: readonly Sample[];
}

/** Some 2 ms of work. */
const PIECE_SAMPLES = 128;

/**
 * The text in pieces, so that others have the thread between them: of 10,000 label sets it takes a second. Families
 * without a sample are left out, as ztunnel does since 1.30. Ends with `# EOF`.
 */
export function* openMetricsPieces(families: readonly Family[]): Iterable<string> {
  let piece = '';
  let count = 0;
  for (const family of families) {
    const { type, samples } = family;
    if (samples.length === 0) continue;
    piece += headOf(family);
    const sampleName = type === 'counter' ? `${familyName(family)}_total` : family.name;
    for (const sample of samples) {
      piece += renderSample(sample.metricName ?? sampleName, sample);
      count += 1;
      if (count % PIECE_SAMPLES !== 0) continue;
      yield piece;
      piece = '';
    }
  }
  yield `${piece}# EOF\n`;
}

function headOf(family: Family): string {
  const { help, type, unit } = family;
  const name = familyName(family);
  const unitLine = unit === undefined ? '' : `# UNIT ${name} ${unit}\n`;
  return `# HELP ${name} ${escapeHelp(help)}\n# TYPE ${name} ${type}\n${unitLine}`;
}

function familyName({ name, type }: Family): string {
  return type === 'counter' ? name.replace(/_total$/, '') : name;
}

function renderSample(name: string, { labels, value }: Sample): string {
  let text = '';
  for (const key in labels) text += `${text === '' ? '' : ','}${key}="${escapeLabel(String(labels[key]))}"`;
  return `${name}${text === '' ? '' : `{${text}}`} ${numberText(value)}\n`;
}

function numberText(value: number): string {
  if (Number.isNaN(value)) return 'NaN';
  if (Number.isFinite(value)) return String(value);
  return value > 0 ? '+Inf' : '-Inf';
}

function escapeLabel(text: string): string {
  return /["\\\n]/.test(text) ? text.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n') : text;
}

function escapeHelp(text: string): string {
  return text.replaceAll('\\', '\\\\').replaceAll('\n', '\\n');
}
