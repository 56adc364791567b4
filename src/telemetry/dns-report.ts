/** What the data plane reports about DNS: plain data, once per message of a client. */
import type { DnsClient, DnsVerdict, Refusal } from '../model/verdict.ts';

export interface DnsReport {
  readonly transport: 'udp' | 'tcp';
  /** Absent when the message could not be read as a query. `type` is one of a closed set. */
  readonly question?: { readonly name: string | undefined; readonly type: string } | undefined;
  /** Absent when nobody knows the pod. */
  readonly client?: DnsClient | undefined;
  readonly outcome: DnsOutcome;
}

type LocalResult = Extract<DnsVerdict, { readonly kind: 'answer' }>['result'];

export type DnsOutcome =
  | { readonly kind: 'local'; readonly result: LocalResult; readonly addresses: number }
  /** A nameserver answered; `isNegative`: with an error, or without a record. */
  | { readonly kind: 'forwarded'; readonly isNegative: boolean; readonly answers: number; readonly durationMs: number }
  /** No nameserver answered. */
  | { readonly kind: 'failed'; readonly refusal: Refusal; readonly durationMs: number }
  | { readonly kind: 'refused'; readonly refusal: Refusal };

export interface DnsTelemetry {
  answered(report: DnsReport): void;
}
