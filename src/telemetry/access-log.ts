/** The fields of an access-log line: their order and rules (facts/operations.md §3.4). */

import { formatHostPort } from '../base/ip.ts';
import type { LogFields, Logger } from '../base/log.ts';
import type { PeerLabels, Refusal } from '../model/verdict.ts';
import type { ConnectionStart, EarlyRefusal } from './traffic.ts';

/** How a connection went, in numbers. */
export interface ConnectionOutcome {
  readonly clientBytes: number;
  readonly serverBytes: number;
  /** Whole milliseconds. */
  readonly durationMs: number;
  readonly refusal?: Refusal | undefined;
}

export function logOpened(log: Logger, start: ConnectionStart): void {
  log.debug?.('connection opened', { ...identityFields(start), connection: start.id });
}

/** The one line per connection: info when it ended in order, error otherwise. */
export function logComplete(log: Logger, start: ConnectionStart, outcome: ConnectionOutcome): void {
  const write = outcome.refusal === undefined ? log.info : log.error;
  write?.('connection complete', {
    ...identityFields(start),
    ...byteFields(start, outcome),
    duration: `${outcome.durationMs}ms`,
    ...refusalFields(outcome.refusal, start.id),
  });
}

/** Refused before it was known who is calling. */
export function logFailed(log: Logger, early: EarlyRefusal, id: string): void {
  log.warn?.('connection failed', {
    'src.addr': formatHostPort(early.src),
    'dst.addr': formatHostPort(early.dst),
    direction: early.direction,
    ...refusalFields(early.refusal, id),
  });
}

/** What the access log calls a peer: its pod, else its canonical service. */
export function peerName(peer: PeerLabels | undefined): string | undefined {
  return text(peer?.pod) ?? text(peer?.canonicalName);
}

/** Identities are printed only when TLS proved them. */
function identityFields(start: ConnectionStart): LogFields {
  const { source, destination, destinationService, securityPolicy } = start.labels;
  const isProven = securityPolicy === 'mutual_tls';
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
  };
}

/** Seen from this side's sender: outbound sends the request, inbound the response. Not flipped as the metrics are. */
function byteFields({ direction }: ConnectionStart, { clientBytes, serverBytes }: ConnectionOutcome): LogFields {
  return direction === 'outbound'
    ? { bytes_sent: clientBytes, bytes_recv: serverBytes }
    : { bytes_sent: serverBytes, bytes_recv: clientBytes };
}

/** `reason` and `connection` are ours, after everything that ztunnel prints. */
function refusalFields(refusal: Refusal | undefined, id: string): LogFields {
  return { error: refusal?.text, reason: refusal?.code, connection: id };
}

function text(value: string | undefined): string | undefined {
  return value === '' ? undefined : value;
}
