/** Counts the DNS queries of one thread for another one: what happened since the last time it was taken, as plain data. */
import type { ReasonCode } from '../base/reasons.ts';
import type { DnsCounts } from './dns-records.ts';
import { type DnsGain, type DnsLabels, DnsSeriesTable } from './dns-series.ts';
import type { AgentMetrics } from './metrics.ts';

export interface DnsGains {
  readonly series: readonly DnsGain[];
  readonly refused: readonly (readonly [ReasonCode, number])[];
}

export class DnsGainCounter implements DnsCounts {
  readonly #onNews: () => void;
  #table = new DnsSeriesTable();
  #refused = new Map<ReasonCode, number>();

  /** `onNews`: there is something to take. */
  constructor(onNews: () => void) {
    this.#onNews = onNews;
  }

  dnsAsked(labels: DnsLabels): void {
    this.#table.asked(labels);
    this.#onNews();
  }

  dnsForwarded(labels: DnsLabels, seconds: number, isFailure: boolean): void {
    this.#table.forwarded(labels, seconds, isFailure);
    this.#onNews();
  }

  dnsRefused(code: ReasonCode): void {
    this.#refused.set(code, (this.#refused.get(code) ?? 0) + 1);
    this.#onNews();
  }

  take(): DnsGains {
    const gains = { series: this.#table.gains(), refused: [...this.#refused] };
    this.#table = new DnsSeriesTable();
    this.#refused = new Map();
    return gains;
  }
}

export function addDnsGains(metrics: AgentMetrics, { series, refused }: DnsGains): void {
  for (const gain of series) metrics.dns.add(gain);
  for (const [code, count] of refused) metrics.dnsRefused(code, count);
}
