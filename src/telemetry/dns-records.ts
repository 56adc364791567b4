/** Counts and logs every DNS message of the captured pods. */
import type { Clock } from '../base/clock.ts';
import type { Logger } from '../base/log.ts';
import { type ReasonCode, reasonOf } from '../base/reasons.ts';
import type { Refusal } from '../model/verdict.ts';
import type { DnsOutcome, DnsReport, DnsTelemetry } from './dns-report.ts';
import type { DnsLabels } from './dns-series.ts';
import { known } from './traffic-labels.ts';

/** Unanswered queries are said above debug this often at most; the metrics have all of them. */
const WARN_EVERY_MS = 60_000;

/** Where queries are counted. */
export interface DnsCounts {
  dnsAsked(labels: DnsLabels): void;
  dnsForwarded(labels: DnsLabels, seconds: number, isFailure: boolean): void;
  dnsRefused(code: ReasonCode): void;
}

export interface DnsRecordsDeps {
  readonly metrics: DnsCounts;
  /** The `dns` scope. */
  readonly log: Logger;
  readonly clock: Clock;
}

export class DnsRecords implements DnsTelemetry {
  readonly #deps: DnsRecordsDeps;
  #warnedMs = Number.NEGATIVE_INFINITY;

  constructor(deps: DnsRecordsDeps) {
    this.#deps = deps;
  }

  answered(report: DnsReport): void {
    const { metrics } = this.#deps;
    const { outcome } = report;
    const labels = labelsOf(report);
    if (labels !== undefined) metrics.dnsAsked(labels);
    if (labels !== undefined && 'durationMs' in outcome) {
      metrics.dnsForwarded(labels, outcome.durationMs / 1_000, outcome.kind === 'failed' || outcome.isNegative);
    }
    if ('refusal' in outcome) metrics.dnsRefused(outcome.refusal.code);
    if (outcome.kind === 'failed') this.#warn(report, outcome.refusal);
    this.#deps.log.debug?.('', fieldsOf(report));
  }

  #warn({ client }: DnsReport, { code, text }: Refusal): void {
    const nowMs = this.#deps.clock.monotonicMs();
    // At the end of the agent what is unanswered is given up.
    if (code === 'CV-DRAIN' || nowMs - this.#warnedMs < WARN_EVERY_MS) return;
    this.#warnedMs = nowMs;
    this.#deps.log.warn?.('DNS queries are not answered', {
      'src.workload': name(client?.pod),
      'src.namespace': name(client?.namespace),
      error: text,
      reason: code,
      next: reasonOf(code).next,
    });
  }
}

/** None when there was no query to count. */
function labelsOf({ question, transport, client }: DnsReport): DnsLabels | undefined {
  return (
    question && {
      request_query_type: question.type.toLowerCase(),
      request_protocol: transport,
      source_canonical_service: known(client?.canonicalName),
      source_canonical_revision: known(client?.canonicalRevision),
    }
  );
}

function fieldsOf({ client, question, outcome }: DnsReport) {
  return {
    'src.workload': name(client?.pod),
    'src.namespace': name(client?.namespace),
    query: question?.type,
    domain: question?.name === undefined ? undefined : `${question.name}.`,
    result: resultOf(outcome),
    endpoints: endpointsOf(outcome),
    reason: 'refusal' in outcome ? outcome.refusal.code : undefined,
  };
}

function resultOf(outcome: DnsOutcome): string {
  switch (outcome.kind) {
    case 'local':
      return outcome.result;
    case 'forwarded':
      return 'forwarded';
    case 'failed':
      return `forwarding failed (${outcome.refusal.text})`;
    case 'refused':
      return `refused (${outcome.refusal.text})`;
  }
}

function endpointsOf(outcome: DnsOutcome): number {
  if (outcome.kind === 'local') return outcome.addresses;
  return outcome.kind === 'forwarded' ? outcome.answers : 0;
}

function name(text: string | undefined): string {
  return text === undefined || text === '' ? 'unknown' : text;
}
