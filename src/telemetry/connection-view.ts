/** A connection as plain data: what `/connections` and `/explain` answer and what the command line prints. */
import { formatHostPort } from '../base/ip.ts';
import type { ReasonCode } from '../base/reasons.ts';
import type { PeerLabels, Refusal } from '../model/verdict.ts';
import { type ConnectionOutcome, peerName } from './access-log.ts';
import type { ConnectionStart, EarlyRefusal } from './traffic.ts';

/** Peer-chosen text kept for a view, UTF-16 units. */
const MAX_TEXT_CHARS = 512;

/**
 * What would keep an open connection in this process when another agent took over now: it is in a tunnel whose peer does not
 * resume; its half has ended in one whose peer cannot be asked to leave, or both have; Node reads ahead on a socket of it,
 * which it does where sockets cannot lend; its reader has not taken all that was sent; its upstream is being dialled.
 */
export type Obstacle = 'tunnel' | 'half-closed' | 'read-ahead' | 'unread' | 'dialling';

export interface PeerView {
  readonly workload?: string;
  readonly namespace?: string;
  /** SPIFFE URI; what the mesh state or the certificate says, proven when `isMutualTls`, and by enrolment when `SAMENODE`. */
  readonly identity?: string;
}

export interface ConnectionView {
  readonly id: string;
  readonly podUid: string;
  readonly state: 'open' | 'complete' | 'refused';
  readonly direction: 'inbound' | 'outbound';
  readonly protocol: ConnectionStart['protocol'];
  readonly isMutualTls: boolean;
  readonly src: string;
  readonly dst: string;
  readonly originalDst?: string;
  readonly hboneAuthority?: string;
  readonly source: PeerView;
  readonly destination: PeerView;
  readonly service?: string;
  /** RFC 3339, UTC. */
  readonly openedAt: string;
  readonly durationMs: number;
  /** Of an open one: since its last byte. */
  readonly idleMs?: number;
  /** Of an open one; absent: it can move to the next agent. */
  readonly obstacle?: Obstacle;
  /** Client to server. Absent: the thread that knew is gone. */
  readonly clientBytes?: number;
  /** Server to client. */
  readonly serverBytes?: number;
  readonly reason?: ReasonCode;
  readonly error?: string;
}

/** A connection at one moment, or at its end. */
export interface ConnectionProgress extends ConnectionOutcome {
  readonly openedAt: string;
  readonly idleMs?: number;
}

export function viewOf(
  start: ConnectionStart,
  state: ConnectionView['state'],
  { refusal, ...progress }: ConnectionProgress,
): ConnectionView {
  const { labels } = start;
  return {
    id: start.id,
    podUid: start.podUid,
    state,
    direction: start.direction,
    protocol: start.protocol,
    isMutualTls: labels.securityPolicy === 'mutual_tls',
    src: formatHostPort(start.src),
    dst: formatHostPort(start.dst),
    ...textField('originalDst', start.originalDst),
    ...textField('hboneAuthority', start.hboneAuthority),
    source: peerView(labels.source),
    destination: peerView(labels.destination),
    ...textField('service', labels.destinationService?.hostname),
    ...progress,
    ...refusalView(refusal),
  };
}

/** A refusal that came before anything but addresses was known. */
export function earlyView(id: string, early: EarlyRefusal, openedAt: string): ConnectionView {
  return {
    id,
    podUid: early.podUid,
    state: 'refused',
    direction: early.direction,
    protocol: 'TCP',
    isMutualTls: false,
    src: formatHostPort(early.src),
    dst: formatHostPort(early.dst),
    source: {},
    destination: {},
    openedAt,
    durationMs: 0,
    clientBytes: 0,
    serverBytes: 0,
    ...refusalView(early.refusal),
  };
}

function refusalView(refusal: Refusal | undefined): { reason?: ReasonCode; error?: string } {
  return refusal === undefined ? {} : { reason: refusal.code, error: refusal.text.slice(0, MAX_TEXT_CHARS) };
}

function peerView(peer: PeerLabels | undefined): PeerView {
  return {
    ...textField('workload', peerName(peer)),
    ...textField('namespace', peer?.namespace),
    ...textField('identity', peer?.identity),
  };
}

/** `{ [key]: value }`, or nothing when the value is unknown. */
function textField<K extends string>(key: K, value: string | undefined): { [P in K]?: string } {
  const field: { [P in K]?: string } = {};
  if (value !== undefined && value !== '') field[key] = value.slice(0, MAX_TEXT_CHARS);
  return field;
}
