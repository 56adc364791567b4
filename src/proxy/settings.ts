/** What the data plane of one pod needs to be told, and what it works with. Built once by `agent/`. */
import type { Clock } from '../base/clock.ts';
import type { Logger } from '../base/log.ts';
import type { Random } from '../base/random.ts';
import type { Revocation } from '../identity/revocation.ts';
import type { TlsContexts } from '../identity/tls-context.ts';
import type { Budget } from '../model/budget.ts';
import type { VerdictPort } from '../model/verdict.ts';
import type { KeepaliveOptions, Sys } from '../sys/sys.ts';
import type { DnsTelemetry } from '../telemetry/dns-report.ts';
import type { TrafficTelemetry } from '../telemetry/traffic.ts';
import type { H2Settings } from '../tunnel/h2-settings.ts';
import type { LoopShares } from '../tunnel/loop-shares.ts';
import type { DnsProxySettings } from './dns-settings.ts';
import type { HboneQuestion, InheritedConnection } from './inheritance.ts';
import type { PodContext } from './pod-context.ts';

export interface ProxySettings {
  /** 15008, 15006, 15001 and, where SOCKS is offered, 15080, unless a test says otherwise. */
  readonly ports: {
    readonly hbone: number;
    readonly plaintext: number;
    readonly outbound: number;
    readonly socks?: number;
  };
  readonly isIpv6Enabled: boolean;
  /** SO_MARK of every socket, 0x539; absent = unmarked. */
  readonly mark?: number;
  readonly isReusePort: boolean;
  readonly keepalive?: KeepaliveOptions;
  /** TCP connect to a tunnel or an application. */
  readonly connectTimeoutMs: number;
  /**
   * From accept to the whole greeting of a peer, which has what is left, but at least half as long, for the rest of its TLS
   * handshake; and for what a SOCKS client says. Unbounded in the reference.
   */
  readonly handshakeTimeoutMs: number;
  /** From connect to the end of the TLS handshake of a tunnel; unbounded there, too. */
  readonly dialHandshakeTimeoutMs: number;
  /** From CONNECT to its answer; unbounded in the reference. */
  readonly responseTimeoutMs: number;
  /** A connection on which no byte moved for this long is closed. */
  readonly idleTimeoutMs: number;
  /** The same for a connection of which one half has ended. */
  readonly halfClosedTimeoutMs: number;
  /** Handshakes in progress per pod; over it the oldest is dropped. */
  readonly maxHandshakes: number;
  /** Tunnels per pod and direction. */
  readonly maxTunnels: number;
  /** Peers are judged by revocation lists; costs one signature check for each handshake. */
  readonly hasRevocationLists: boolean;
  /** Application connections per pod and listener. */
  readonly maxConnections: number;
  readonly pool: { readonly maxStreams: number; readonly idleReleaseMs: number };
  readonly http2Client: H2Settings;
  readonly http2Server: H2Settings;
  /** Workloads take turns on the event loop; without it work is counted and nobody waits. */
  readonly isFair: boolean;
  /** Pods of this node may reach each other without a tunnel. */
  readonly isShortCutAccepted: boolean;
  /** Of a pod that has none of its own. */
  readonly budget: Budget;
  /** Absent = no DNS proxy. */
  readonly dns?: DnsProxySettings;
}

/** The pod of that UID while this thread knows it and this process takes new connections for it. */
export type Neighbour = (podUid: string) => PodContext | undefined;

/** Whose suspended stream is looked for, by whom. */
export interface StreamClaim {
  readonly podUid: string;
  readonly token: string;
  /** Of the client that shows the token. */
  readonly question: HboneQuestion;
}

/**
 * What is known of a stream that a client looks for: here it is, the caller's; `foreign`: it is not this client's; `later`: it
 * may turn up; `nowhere`: whoever could have it is asked, and it has not.
 */
export type ClaimedStream = InheritedConnection | 'foreign' | 'later' | 'nowhere';

/** Of the answers of several, of whom at most one has it. */
export function claimedOf(answers: readonly ClaimedStream[]): ClaimedStream {
  const found = answers.find((answer) => typeof answer === 'object') ?? answers.find((answer) => answer === 'foreign');
  return found ?? (answers.includes('later') ? 'later' : 'nowhere');
}

export interface ProxyDeps {
  /** Absent: connections of pods go through tunnels, wherever they lead. */
  readonly neighbour?: Neighbour;
  readonly sys: Sys;
  readonly clock: Clock;
  readonly random: Random;
  readonly verdicts: VerdictPort;
  readonly contexts: TlsContexts;
  /** Absent: no revocation lists are configured. */
  readonly revocation?: Revocation | undefined;
  readonly telemetry: TrafficTelemetry;
  /** The event loop of this thread, shared out among its pods. */
  readonly loop: LoopShares;
  readonly dns: DnsTelemetry;
  readonly log: Logger;
  /**
   * Peers attack the pod, told once a second while that goes on. True: another thread is about to take who comes, and need not
   * find them here. Absent: nobody wants to know.
   */
  readonly onAttack?: ((podUid: string) => boolean) | undefined;
  /** Suspended streams of the same pods in other threads, and in agents before this one; absent: there are none. */
  readonly elsewhere?: { claim(claim: StreamClaim): Promise<ClaimedStream> };
}
