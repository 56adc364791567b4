/** The exposition format: OpenMetrics 1.0 text, whatever the scraper asked for (facts/operations.md §2.1). Pure. */

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

/** Families without a sample are left out, as ztunnel does since 1.30. Ends with `# EOF`. */
export function renderOpenMetrics(families: readonly Family[]): string {
  return `${families.map(renderFamily).join('')}# EOF\n`;
}

function renderFamily({ name, help, type, unit, samples }: Family): string {
  if (samples.length === 0) return '';
  const family = type === 'counter' ? name.replace(/_total$/, '') : name;
  const sampleName = type === 'counter' ? `${family}_total` : family;
  const lines = samples.map((sample) => renderSample(sample.metricName ?? sampleName, sample));
  const unitLine = unit === undefined ? '' : `# UNIT ${family} ${unit}\n`;
  return `# HELP ${family} ${escapeHelp(help)}\n# TYPE ${family} ${type}\n${unitLine}${lines.join('')}`;
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
