/** The fields of an access-log line: their order and rules. */
import { formatHostPort } from '../base/ip.ts';
import type { LogFields, Logger } from '../base/log.ts';
import type { PeerLabels, Refusal } from '../model/verdict.ts';
import type { ConnectionStart, EarlyRefusal } from './traffic.ts';

/** How a connection went, in numbers. */
export interface ConnectionOutcome {
  /** Absent: the thread that knew is gone. */
  readonly clientBytes?: number;
  readonly serverBytes?: number;
  /** Whole milliseconds. */
  readonly durationMs: number;
  readonly refusal?: Refusal | undefined;
}

export function logOpened(log: Logger, start: ConnectionStart): void {
  log.debug?.('connection opened', lineFields(start, undefined));
}

/** The one line per connection: info when it ended in order, error otherwise. */
export function logComplete(log: Logger, start: ConnectionStart, outcome: ConnectionOutcome): void {
  const write = outcome.refusal === undefined ? log.info : log.error;
  write?.('connection complete', lineFields(start, outcome));
}

/** Refused before it was known who is calling. */
export function logFailed(log: Logger, early: EarlyRefusal, id: string): void {
  log.warn?.('connection failed', {
    'src.addr': formatHostPort(early.src),
    'dst.addr': formatHostPort(early.dst),
    direction: early.direction,
    error: early.refusal.text,
    reason: early.refusal.code,
    connection: id,
  });
}

/** So many as `last`, of which there was no line. */
export function logManyFailed(log: Logger, last: EarlyRefusal, count: number): void {
  log.warn?.('connections failed, too many to log each', {
    count,
    'last.src.addr': formatHostPort(last.src),
    'dst.addr': formatHostPort(last.dst),
    direction: last.direction,
    error: last.refusal.text,
    reason: last.refusal.code,
  });
}

/** What the access log calls a peer: its pod, else its canonical service. */
export function peerName(peer: PeerLabels | undefined): string | undefined {
  return text(peer?.pod) ?? text(peer?.canonicalName);
}

/**
 * All fields in their order; absent ones are `undefined` and not written. Identities are printed only when TLS proved
 * them, or both pods are ours. `reason` and `connection` are ours, after everything that ztunnel prints.
 */
function lineFields(start: ConnectionStart, outcome: ConnectionOutcome | undefined): LogFields {
  const { source, destination, destinationService, securityPolicy } = start.labels;
  const isProven = securityPolicy !== 'unknown';
  const isOutbound = start.direction === 'outbound';
  return {
    'src.addr': formatHostPort(start.src),
    'src.workload': peerName(source),
    'src.namespace': text(source?.namespace),
    'src.identity': isProven ? text(source?.identity) : undefined,
    'src.cluster': text(source?.cluster),
    'dst.addr': formatHostPort(start.dst),
    'dst.hbone_addr': text(start.hboneAuthority),
    'dst.service': text(destinationService?.hostname),
    'dst.workload': peerName(destination),
    'dst.namespace': text(destination?.namespace),
    'dst.identity': isProven ? text(destination?.identity) : undefined,
    'dst.cluster': text(destination?.cluster),
    direction: start.direction,
    // Seen from this side's sender: outbound sends the request, inbound the response. Not flipped as the metrics are.
    bytes_sent: isOutbound ? outcome?.clientBytes : outcome?.serverBytes,
    bytes_recv: isOutbound ? outcome?.serverBytes : outcome?.clientBytes,
    duration: outcome && `${outcome.durationMs}ms`,
    error: outcome?.refusal?.text,
    reason: outcome?.refusal?.code,
    connection: start.id,
  };
}

function text(value: string | undefined): string | undefined {
  return value === '' ? undefined : value;
}
