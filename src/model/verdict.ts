/**
 * The one typed port between the data plane and the owner of the mesh state. Plain data only: every question, verdict and
 * push can be structured-cloned, so the port may end in this thread or in another.
 */
import type { HostPort } from '../base/ip.ts';
import type { ReasonCode } from '../base/reasons.ts';

/** Who sends or receives, as metrics and the access log name them. Empty text = unknown. */
export interface PeerLabels {
  /** Pod name (the workload record's name); what the access log prints. */
  readonly pod: string;
  /** Owner, for example the Deployment; what metrics print. */
  readonly workload: string;
  readonly canonicalName: string;
  readonly canonicalRevision: string;
  readonly app: string;
  readonly namespace: string;
  /** SPIFFE URI of the workload record, or of the verified certificate. */
  readonly identity: string;
  readonly cluster: string;
  readonly region: string;
  readonly zone: string;
}

export interface ServiceLabels {
  readonly hostname: string;
  readonly name: string;
  readonly namespace: string;
}

/** Everything metrics and the access log need to know about one connection at its start. */
export interface ConnectionLabels {
  readonly reporter: 'source' | 'destination';
  readonly source?: PeerLabels;
  readonly destination?: PeerLabels;
  readonly destinationService?: ServiceLabels;
  /** `same_node`: not encrypted and never off this node, between pods whose identities the agent knows by their enrolment. */
  readonly securityPolicy: 'mutual_tls' | 'same_node' | 'unknown';
}

/** Why a connection is not carried. `text` is what the log says, in the words that operators know from ztunnel. */
export interface Refusal {
  readonly code: ReasonCode;
  readonly text: string;
}

export interface OutboundQuestion {
  readonly podUid: string;
  /** The application's own address. */
  readonly client: HostPort;
  /** Original destination, before redirection. */
  readonly target: HostPort;
}

/** One CONNECT stream through one tunnel. */
export interface TunnelRoute {
  /** TCP and TLS peer, normally port 15008. */
  readonly address: HostPort;
  /** CONNECT `:authority`. */
  readonly authority: string;
  /** SPIFFE URI of the captured pod: the certificate to present. */
  readonly identity: string;
  /** SPIFFE URIs one of which the peer must prove; never empty. */
  readonly expectedIdentities: readonly string[];
  readonly baggage: string;
  readonly forwarded: string;
}

/** The destination is captured by this agent too, and the operator has accepted that such connections skip the tunnel. */
export interface SameNodeRoute {
  readonly podUid: string;
  /** Where the application is meant to listen. */
  readonly address: HostPort;
}

export type OutboundVerdict =
  /** `labels` absent: refused before enough was known; logged as `connection failed`, not counted. */
  | { readonly kind: 'refuse'; readonly refusal: Refusal; readonly labels?: ConnectionLabels }
  | { readonly kind: 'plaintext'; readonly address: HostPort; readonly labels: ConnectionLabels }
  | ({
      readonly kind: 'hbone';
      readonly labels: ConnectionLabels;
      /** Present: the tunnel is not needed while that pod is served here. */
      readonly sameNode?: SameNodeRoute;
    } & TunnelRoute)
  /** Into another network: a tunnel to its gateway, and inside the stream one more to whoever serves there. */
  | ({
      readonly kind: 'double-hbone';
      /** SPIFFE URIs one of which the far end must prove; never empty. */
      readonly innerExpectedIdentities: readonly string[];
      /** `x-forwarded-network` of the inner CONNECT: our own network. */
      readonly forwardedNetwork: string;
      /** The destination is the gateway: the far end tells who it is with its answer. */
      readonly labels: ConnectionLabels;
    } & TunnelRoute);

export interface InboundQuestion {
  readonly podUid: string;
  /** Chosen by the data plane, unique while the connection lives. The key of `revoke` and `release`. */
  readonly connectionId: string;
  /** TCP peer, never a header. */
  readonly peer: HostPort;
  /** hbone: local address of the tunnel; plaintext: original destination. */
  readonly local: HostPort;
  /** There is no tunnel: `hbone` is what would have come through it, and the identity is that of the pod which called. */
  readonly isSameNode?: true;
  /** Present for HBONE, absent for plaintext. */
  readonly hbone?: {
    /** From the verified certificate; absent when it carries no parsable SPIFFE ID. */
    readonly peerIdentity?: string;
    readonly authority: string;
    /** First `forwarded` header value, raw. */
    readonly forwarded?: string;
    /** All `baggage` header lines, raw. */
    readonly baggage?: readonly string[];
    readonly forwardedNetwork?: string;
  };
}

export type InboundVerdict =
  | { readonly kind: 'refuse'; readonly refusal: Refusal; readonly labels?: ConnectionLabels }
  | {
      readonly kind: 'accept';
      /** Where the application listens. */
      readonly address: HostPort;
      /** Bind the dialled socket to this address (transparent); absent = let the kernel choose. */
      readonly sourceIp?: string;
      /** Write a PROXY v2 header before the first byte. */
      readonly proxyHeader?: {
        readonly source: HostPort;
        readonly destination: HostPort;
        readonly identity?: string;
      };
      /** `baggage` of the 200 response; absent = no header. */
      readonly responseBaggage?: string;
      readonly labels: ConnectionLabels;
    };

/** A query of an application. */
export interface DnsQuestion {
  readonly podUid: string;
  /** As asked, without the final dot. */
  readonly name: string;
  /** `other`: whatever the mesh has no records of; never answered here. */
  readonly type: 'A' | 'AAAA' | 'other';
}

/** Who asked, as the metrics and the log of DNS name it. */
export type DnsClient = Pick<PeerLabels, 'pod' | 'namespace' | 'canonicalName' | 'canonicalRevision'>;

export type DnsVerdict =
  | { readonly kind: 'refuse'; readonly refusal: Refusal }
  /** Not a name of the mesh, or not a type it has: the nameservers of the node are asked. */
  | { readonly kind: 'forward'; readonly client: DnsClient }
  | {
      readonly kind: 'answer';
      readonly client: DnsClient;
      /** As the log of DNS words it; without success there are no addresses, and the name exists all the same. */
      readonly result: 'success' | 'no records' | 'service does not support this record type';
      /** What the asked name stands for, and who has the addresses then. */
      readonly cname?: string;
      /** In the order to send them. */
      readonly addresses: readonly string[];
    };

/** Key and chain to present, and roots to trust, as PEM. */
export interface TlsMaterial {
  readonly identity: string;
  readonly keyPem: string;
  /** Leaf, then intermediates. */
  readonly chainPem: string;
  readonly rootsPem: readonly string[];
  /** Changes with every renewal or root change: equal serials mean equal material. */
  readonly serial: string;
  readonly notAfterMs: number;
}

/** What the owner of the state tells the data plane unasked. */
export type VerdictPush =
  /** These live connections are no longer allowed. */
  | { readonly kind: 'revoke'; readonly connectionIds: readonly string[]; readonly refusal: Refusal }
  /** The material of an identity changed: drop cached contexts. */
  | { readonly kind: 'certificate'; readonly identity: string }
  /** Every revocation list in force, DER; replaces all before. */
  | { readonly kind: 'crls'; readonly crls: readonly Uint8Array[] };

export interface VerdictPort {
  outbound(question: OutboundQuestion): Promise<OutboundVerdict>;
  /** Registers the connection before judging it, so that no policy push can fall between. */
  inbound(question: InboundQuestion): Promise<InboundVerdict>;
  /** Never rejects for want of a record: the pod's own is waited for up to 5 s, then the query is refused. */
  resolve(question: DnsQuestion): Promise<DnsVerdict>;
  /** The connection ended; to be called exactly once for each `inbound` question, whatever the verdict was. */
  release(connectionId: string): void;
  /** SPIFFE URI the pod must present; rejects with `CV-WORKLOAD-UNKNOWN` after 5 s. */
  identityOf(podUid: string): Promise<string>;
  /** Rejects with `CV-CERT-UNAVAILABLE` when there is no valid certificate. */
  certificate(identity: string): Promise<TlsMaterial>;
  /** One listener, which is told at once what it must know to begin; disposing the handle ends the subscription. */
  subscribe(listener: (push: VerdictPush) => void): Disposable;
}
