/** The `traceparent` header (W3C Trace Context, version 00): correlates log lines of both nodes, nothing else. */
import type { Random } from '../base/random.ts';

export interface TraceParent {
  /** 32 lower-case hex digits. */
  readonly traceId: string;
  /** 16 lower-case hex digits. */
  readonly spanId: string;
}

const TRACEPARENT = /^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})$/;

/** A fresh parent for one application connection; never taken from the application. */
export function newTraceParent(random: Random): TraceParent {
  return { traceId: random.hex(16), spanId: random.hex(8) };
}

export function formatTraceParent({ traceId, spanId }: TraceParent): string {
  return `00-${traceId}-${spanId}-00`;
}

/** `undefined` for anything but 55 characters of the right shape; the caller then makes a fresh one. */
export function parseTraceParent(value: string): TraceParent | undefined {
  const [, version, traceId = '', spanId = ''] = TRACEPARENT.exec(value) ?? [];
  const isValid = version !== undefined && version !== 'ff' && !/^0*$/.test(traceId) && !/^0*$/.test(spanId);
  return isValid ? { traceId, spanId } : undefined;
}
