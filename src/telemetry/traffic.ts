/** What the data plane reports about connections. One record per connection; its end is logged and counted exactly once. */
import type { HostPort } from '../base/ip.ts';
import type { ConnectionLabels, Refusal } from '../model/verdict.ts';

export interface ConnectionStart {
  /** Shown by `culvert connections`, accepted by `culvert explain`. */
  readonly id: string;
  readonly podUid: string;
  readonly direction: 'inbound' | 'outbound';
  readonly protocol: 'HBONE' | 'TCP' | 'DOUBLEHBONE' | 'SAMENODE';
  readonly src: HostPort;
  /**
   * Access log `dst.addr`: the next hop (outbound), `<pod ip>:15008` (inbound HBONE), the original destination (plaintext),
   * the application (both lines of a same-node short cut).
   */
  readonly dst: HostPort;
  /** Original destination as the application dialled it (outbound), or the forwarded host (inbound HBONE). */
  readonly originalDst?: string;
  /** CONNECT authority: access log `dst.hbone_addr`. */
  readonly hboneAuthority?: string;
  readonly labels: ConnectionLabels;
  /** How long the connection had been there before enough was known to open a record: part of its duration. */
  readonly setupMs?: number;
  /** What another process carried of it before this one. */
  readonly earlier?: { readonly clientBytes: number; readonly serverBytes: number; readonly idleMs?: number };
}

/** What connections are counted by in a hand-over. */
export type ConnectionKind = Pick<ConnectionStart, 'direction' | 'protocol'>;

/** Handles are resolved at `open`; `add…` is a counter increment, fit for the hot path. */
export interface ConnectionRecord {
  /** Bytes that went from the client towards the server. */
  addClientBytes(bytes: number): void;
  /** Bytes that went from the server towards the client. */
  addServerBytes(bytes: number): void;
  /** Since its last byte, or its start. */
  readonly idleMs: number;
  /** Ends the record; only the first call counts. No refusal = ended in order. */
  close(refusal?: Refusal): void;
  /** Ends the record without a line: another process goes on with the connection, from these numbers, and writes it. */
  move(): ConnectionStart;
}

export interface EarlyRefusal {
  readonly direction: 'inbound' | 'outbound';
  readonly podUid: string;
  readonly src: HostPort;
  readonly dst: HostPort;
  readonly refusal: Refusal;
}

export interface TrafficTelemetry {
  open(start: ConnectionStart): ConnectionRecord;
  /** A connection of another process goes on here, after so long a pause. */
  moved(kind: ConnectionKind, pauseMs: number): void;
  /** Refused before labels could be computed: one `connection failed` line, no traffic metrics. */
  refused(refusal: EarlyRefusal): void;
  /** Accepted downstream sockets currently held (`istio_tcp_sockets_open`). */
  socketOpened(reporter: 'source' | 'destination'): void;
  socketClosed(reporter: 'source' | 'destination'): void;
  /** A peer was turned away, or its tunnel cut, because of a revocation list. */
  peerRevoked(reporter: 'source' | 'destination'): void;
}
