/** Every sample and every verdict as JSON, for machines and for later comparison. */
import { METRIC_NAMES, metric } from '../metrics.ts';
import { compare, type Results } from './comparison.ts';
import type { Conditions } from './machine.ts';

export function renderJson(results: Results, machine: Conditions): string {
  const samples = [...results].map(([column, of]) => [
    column,
    Object.fromEntries(METRIC_NAMES.filter((name) => of.of(name).length > 0).map((name) => [name, of.of(name)])),
  ]);
  const rows = compare(results).map((row) => ({
    ...metric(row.name),
    name: row.name,
    medians: Object.fromEntries(row.medians),
    ratioToBetterPeer: row.ratio,
    isMet: row.isMet,
  }));
  return JSON.stringify({ machine, rows, samples: Object.fromEntries(samples) }, undefined, 2);
}
