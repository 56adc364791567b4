/**
 * Every reason the agent can give for refusing, closing or not starting something: one row per stable code.
 * Log level, CONNECT status, response flag, `culvert explain` and the table in README.md all follow from these rows.
 */

/** Who has to act. Log level and retry follow from it (STYLE.md, Errors). */
export type Fault = 'peer' | 'policy' | 'upstream' | 'control' | 'local' | 'bug';

/** The part of the agent that decided. */
export type Layer = 'capture' | 'policy' | 'routing' | 'identity' | 'tunnel' | 'application' | 'agent' | 'wire' | 'dns';

/** `response_flags` of the traffic metrics, spelt as ztunnel spells them. */
export type ResponseFlag =
  | '-'
  | 'DENY'
  | 'CONNECT'
  | 'TLS_FAILURE'
  | 'H2_HANDSHAKE_FAILURE'
  | 'NETWORK_POLICY'
  | 'IDENTITY_ERROR'
  | 'CERT_REVOKED';

export interface Reason {
  readonly fault: Fault;
  readonly layer: Layer;
  /** `response_flags` when a connection ends with this reason. */
  readonly flag: ResponseFlag;
  /** HTTP status of our CONNECT answer when an inbound stream is refused with this reason. */
  readonly status: 400 | 401 | 500 | 503;
  /** What happened, for an operator. */
  readonly cause: string;
  /** What to look at or do next. */
  readonly next: string;
}

export const REASONS = {
  'CV-POLICY-DENY': {
    fault: 'policy',
    layer: 'policy',
    flag: 'DENY',
    status: 401,
    cause: 'a DENY policy matches this connection',
    next: 'read the policy named in the error (culvert policies); change its rules or the caller identity',
  },
  'CV-POLICY-NOT-ALLOWED': {
    fault: 'policy',
    layer: 'policy',
    flag: 'DENY',
    status: 401,
    cause: 'ALLOW policies select this workload and none matches the connection',
    next: 'compare src.identity in the access log with the principals of the ALLOW policies (culvert policies); a plaintext client has no identity',
  },
  'CV-POLICY-CHANGED': {
    fault: 'policy',
    layer: 'policy',
    flag: 'DENY',
    status: 401,
    cause: 'a policy update forbids a connection that was already open',
    next: 'expected after tightening a policy; otherwise look at the latest policy change',
  },
  'CV-POLICY-INVALID': {
    fault: 'policy',
    layer: 'policy',
    flag: 'DENY',
    status: 401,
    cause: 'a policy that selects this workload could not be understood, so everything it could decide is refused',
    next: 'fix the policy; the agent log names it and the field (look for "policy rejected")',
  },
  'CV-SELF-CALL': {
    fault: 'peer',
    layer: 'routing',
    flag: 'CONNECT',
    status: 503,
    cause: "the destination is one of the agent's own ports; relaying would loop",
    next: 'do not dial 15001, 15006 or 15008; use the application port',
  },
  'CV-WORKLOAD-UNKNOWN': {
    fault: 'control',
    layer: 'routing',
    flag: 'CONNECT',
    status: 503,
    cause: 'the captured pod is not among the workloads this agent knows (waited 5 s)',
    next: 'check that the mesh state lists the pod with this node, namespace and service account (culvert workloads)',
  },
  'CV-NO-ENDPOINT': {
    fault: 'upstream',
    layer: 'routing',
    flag: 'CONNECT',
    status: 503,
    cause: 'the service has no endpoint that is healthy and fits its load-balancing rules',
    next: 'culvert services shows healthy/total endpoints; check readiness of the pods and the service port',
  },
  'CV-WAYPOINT-UNKNOWN': {
    fault: 'control',
    layer: 'routing',
    flag: 'CONNECT',
    status: 503,
    cause: 'a waypoint is required and cannot be resolved to a workload with an address',
    next: 'check that the waypoint exists and has a ready pod; traffic never bypasses a missing waypoint',
  },
  'CV-GATEWAY-UNKNOWN': {
    fault: 'control',
    layer: 'routing',
    flag: 'CONNECT',
    status: 503,
    cause: 'the destination is in another network and no usable gateway to it is known',
    next: 'check the networkGateway of the destination workload and the NETWORK of this node',
  },
  'CV-NO-ADDRESS': {
    fault: 'control',
    layer: 'routing',
    flag: 'CONNECT',
    status: 503,
    cause: 'the chosen workload has no IP address the client can reach',
    next: 'check workloadIps and the ipFamilies of the service (culvert workloads, culvert services)',
  },
  'CV-SERVICE-IDENTITY': {
    fault: 'control',
    layer: 'routing',
    flag: 'CONNECT',
    status: 503,
    cause: 'a service in another network names no SPIFFE identity, so nobody there can prove to be it',
    next: 'subjectAltNames of the service, or of its waypoint, must list the identities that serve it there (culvert services)',
  },
  'CV-CERT-UNAVAILABLE': {
    fault: 'control',
    layer: 'identity',
    flag: 'IDENTITY_ERROR',
    status: 503,
    cause: 'no valid certificate for the identity of the captured pod',
    next: 'culvert certificates shows the state and the last CA error',
  },
  'CV-PEER-CERT': {
    fault: 'peer',
    layer: 'identity',
    flag: 'CONNECT',
    status: 400,
    cause: 'the certificate of the peer is missing, expired or not signed by a root this mesh trusts',
    next: 'compare the roots on both sides (culvert certificates) and the clocks of both nodes',
  },
  'CV-PEER-IDENTITY': {
    fault: 'peer',
    layer: 'identity',
    flag: 'CONNECT',
    status: 400,
    cause: 'the server proved another identity than the one the mesh state gives for this address',
    next: 'usually a re-used pod IP or stale state; compare the identities in the error with culvert workloads',
  },
  'CV-PEER-TRUST-DOMAIN': {
    fault: 'peer',
    layer: 'identity',
    flag: 'CONNECT',
    status: 400,
    cause: 'the client certificate belongs to another trust domain',
    next: 'clients must come from the trust domain of the server; federation is not configured here',
  },
  'CV-PEER-REVOKED': {
    fault: 'peer',
    layer: 'identity',
    flag: 'CERT_REVOKED',
    status: 400,
    cause: 'the certificate of the peer, or of a CA above it, is on a revocation list of this agent',
    next: 'the error has serial and CA; issue the peer a new certificate, or take the serial off the list (CRL_PATH)',
  },
  'CV-TLS-HANDSHAKE': {
    fault: 'peer',
    layer: 'identity',
    flag: 'CONNECT',
    status: 400,
    cause: 'the TLS 1.3 handshake failed before identities were compared',
    next: 'the error has the reason from OpenSSL; the peer must offer TLS 1.3 and ALPN h2 and present a certificate',
  },
  'CV-TLS-TIMEOUT': {
    fault: 'peer',
    layer: 'identity',
    flag: 'CONNECT',
    status: 400,
    cause: 'the TLS handshake did not finish in time',
    next: 'the peer is overloaded, silent, or something drops packets on port 15008',
  },
  'CV-TUNNEL-TIMEOUT': {
    fault: 'upstream',
    layer: 'tunnel',
    flag: 'NETWORK_POLICY',
    status: 503,
    cause: 'no TCP answer from port 15008 of the destination',
    next: 'a NetworkPolicy, firewall or security group may block 15008; the node may be gone',
  },
  'CV-TUNNEL-REFUSED': {
    fault: 'upstream',
    layer: 'tunnel',
    flag: 'CONNECT',
    status: 503,
    cause: 'TCP to port 15008 of the destination failed',
    next: 'is the agent of that node up, and the pod enrolled there? (culvert status on its node)',
  },
  'CV-TUNNEL-HTTP2': {
    fault: 'peer',
    layer: 'tunnel',
    flag: 'H2_HANDSHAKE_FAILURE',
    status: 400,
    cause: 'the HTTP/2 session of the tunnel failed or broke its protocol',
    next: 'look at the log of the peer agent for the same time',
  },
  'CV-TUNNEL-ABUSE': {
    fault: 'peer',
    layer: 'tunnel',
    flag: 'CONNECT',
    status: 400,
    cause: 'the peer exceeded a limit that only abuse reaches (resets, pings, settings, empty frames, header size)',
    next: 'find the peer by address and identity in the log line; the session was closed',
  },
  'CV-TUNNEL-CLOSED': {
    fault: 'upstream',
    layer: 'tunnel',
    flag: 'CONNECT',
    status: 503,
    cause: 'the tunnel under this connection went away',
    next: 'look at the peer agent: restart, drain, or a network break',
  },
  'CV-TUNNEL-DEAD': {
    fault: 'upstream',
    layer: 'tunnel',
    flag: 'CONNECT',
    status: 503,
    cause: 'the peer of the tunnel did not answer a PING in 20 s',
    next: 'the pod or node behind the tunnel is gone or badly overloaded',
  },
  'CV-CONNECT-TIMEOUT': {
    fault: 'upstream',
    layer: 'tunnel',
    flag: 'CONNECT',
    status: 503,
    cause: 'the peer accepted the tunnel but never answered the CONNECT request',
    next: 'look at the peer agent; its application connect may hang',
  },
  'CV-CONNECT-DENIED': {
    fault: 'upstream',
    layer: 'tunnel',
    flag: 'CONNECT',
    status: 503,
    cause: 'the destination side refused the CONNECT by policy (HTTP 401 or 403)',
    next: 'the access log of the destination node names the policy; check the identity of this client',
  },
  'CV-CONNECT-REJECTED': {
    fault: 'upstream',
    layer: 'tunnel',
    flag: 'CONNECT',
    status: 503,
    cause: 'the destination side refused the CONNECT as wrong (HTTP 400)',
    next: 'addresses disagree between both nodes: stale mesh state or a re-used pod IP',
  },
  'CV-CONNECT-FAILED': {
    fault: 'upstream',
    layer: 'tunnel',
    flag: 'CONNECT',
    status: 503,
    cause: 'the destination side could not complete the CONNECT (HTTP 503 or another status)',
    next: 'the application behind it may not listen on that port; see the access log of the destination node',
  },
  'CV-METHOD': {
    fault: 'peer',
    layer: 'tunnel',
    flag: 'CONNECT',
    status: 400,
    cause: 'port 15008 was asked for something other than CONNECT',
    next: '15008 speaks HBONE only; send requests to the application port',
  },
  'CV-AUTHORITY': {
    fault: 'peer',
    layer: 'tunnel',
    flag: 'CONNECT',
    status: 400,
    cause: 'the CONNECT authority is not host:port',
    next: 'the peer does not speak HBONE as this mesh does',
  },
  'CV-IP-MISMATCH': {
    fault: 'peer',
    layer: 'routing',
    flag: 'CONNECT',
    status: 400,
    cause: 'the CONNECT authority names an address that is not this pod and not served by it',
    next: 'stale state at the client, or a waypoint that is not attached to the destination',
  },
  'CV-SERVICE-UNKNOWN': {
    fault: 'control',
    layer: 'routing',
    flag: 'CONNECT',
    status: 503,
    cause: 'the CONNECT authority names a service that this pod does not serve, or whose port has no number here',
    next: 'check the service, its ports and its endpoints (culvert services)',
  },
  'CV-APP-REFUSED': {
    fault: 'upstream',
    layer: 'application',
    flag: 'CONNECT',
    status: 503,
    cause: 'the destination application did not accept the TCP connection',
    next: 'is it listening on that port, on the pod address? The error has the operating system reason',
  },
  'CV-APP-TIMEOUT': {
    fault: 'upstream',
    layer: 'application',
    flag: 'CONNECT',
    status: 503,
    cause: 'TCP to the destination did not complete within 10 s',
    next: 'check routes, NetworkPolicy and the backlog of the application',
  },
  'CV-IO': {
    fault: 'upstream',
    layer: 'application',
    flag: 'CONNECT',
    status: 503,
    cause: 'a socket failed in the middle of the connection',
    next: 'the error has the direction and the operating system reason',
  },
  'CV-DNS-TIMEOUT': {
    fault: 'upstream',
    layer: 'dns',
    flag: 'CONNECT',
    status: 503,
    cause: 'no nameserver answered a query of the pod in time; it got SERVFAIL',
    next: "are the nameservers of the agent's resolv.conf up, and may this pod reach them (NetworkPolicy, port 53)?",
  },
  'CV-DNS-UNREACHABLE': {
    fault: 'upstream',
    layer: 'dns',
    flag: 'CONNECT',
    status: 503,
    cause: 'no nameserver could be reached from the pod; its query got SERVFAIL',
    next: "the error has the operating system reason; compare the agent's resolv.conf with the routes of the pod",
  },
  'CV-DNS-UNSUPPORTED': {
    fault: 'peer',
    layer: 'dns',
    flag: 'CONNECT',
    status: 400,
    cause: 'a DNS message of a pod is no query (update, notify, zone transfer); it got NOTIMP',
    next: 'let this pod talk to its nameserver itself: annotation ambient.istio.io/dns-capture, or dnsCapture: false in the pods file',
  },
  'CV-IDLE': {
    fault: 'local',
    layer: 'agent',
    flag: 'CONNECT',
    status: 503,
    cause: 'nothing was sent for longer than the idle bound',
    next: 'let the application send keepalives, or raise the bound (see README.md, Limits)',
  },
  'CV-LIMIT': {
    fault: 'local',
    layer: 'agent',
    flag: 'CONNECT',
    status: 503,
    cause: 'a bound of this agent was reached',
    next: 'the error names the bound; find the noisy pod with culvert connections',
  },
  'CV-DRAIN': {
    fault: 'local',
    layer: 'agent',
    flag: '-',
    status: 503,
    cause: 'the agent is stopping, or the pod is being removed',
    next: 'expected during a restart or un-enrolment',
  },
  'CV-BUG': {
    fault: 'bug',
    layer: 'agent',
    flag: 'CONNECT',
    status: 500,
    cause: 'a defect of the agent; only this connection was ended',
    next: 'report it with the stack in the error log',
  },
  'CV-WIRE-MALFORMED': {
    fault: 'peer',
    layer: 'wire',
    flag: 'CONNECT',
    status: 400,
    cause: 'bytes on the wire do not follow their format',
    next: 'the error names the format and the field',
  },
  'CV-WIRE-TOO-LARGE': {
    fault: 'peer',
    layer: 'wire',
    flag: 'CONNECT',
    status: 400,
    cause: 'a message is over its limit',
    next: 'the error has the size and the limit',
  },
  'CV-WIRE-TRUNCATED': {
    fault: 'peer',
    layer: 'wire',
    flag: 'CONNECT',
    status: 400,
    cause: 'input ended inside a message',
    next: 'the peer closed early or lost data',
  },
  'CV-CONFIG': {
    fault: 'local',
    layer: 'agent',
    flag: 'CONNECT',
    status: 503,
    cause: 'a setting is wrong',
    next: 'all bad settings are listed at once; the agent does not start until they are fixed (exit code 78)',
  },
  'CV-MESH-FILE': {
    fault: 'control',
    layer: 'agent',
    flag: 'CONNECT',
    status: 503,
    cause: 'the mesh file was refused whole; the last good state stays',
    next: 'the error has file, line and field; the next good version is picked up by itself',
  },
  'CV-XDS': {
    fault: 'control',
    layer: 'agent',
    flag: 'CONNECT',
    status: 503,
    cause:
      'the control plane cannot be reached, refused this agent, or sent something that cannot be used; the last good state stays',
    next: 'the error has the address and the reason; check XDS_ADDRESS, XDS_ROOT_CA, the token, and the log of the control plane',
  },
  'CV-RPC': {
    fault: 'peer',
    layer: 'wire',
    flag: 'CONNECT',
    status: 400,
    cause: 'a caller of a gRPC service of ours was refused',
    next: 'the error has the gRPC status and the reason, and the caller has been told both',
  },
  'CV-CA': {
    fault: 'control',
    layer: 'identity',
    flag: 'IDENTITY_ERROR',
    status: 503,
    cause: 'the certificate authority could not issue, or its files cannot be used',
    next: 'the error names the file or the answer of the CA',
  },
  'CV-CA-AUTH': {
    fault: 'control',
    layer: 'identity',
    flag: 'IDENTITY_ERROR',
    status: 503,
    cause: 'the certificate authority does not accept this agent, or its token cannot be read',
    next: 'the error has the file or the answer; check AUTH_TOKEN, and that the CA trusts this service account (CA_TRUSTED_NODE_ACCOUNTS)',
  },
  'CV-CA-UNREACHABLE': {
    fault: 'control',
    layer: 'identity',
    flag: 'IDENTITY_ERROR',
    status: 503,
    cause: 'the certificate authority cannot be reached or does not answer',
    next: 'the error has the address and the reason; check CA_ADDRESS, CA_ROOT_CA and that the CA runs; certificates in use serve until they end',
  },
  'CV-CERT-FILES': {
    fault: 'control',
    layer: 'identity',
    flag: 'IDENTITY_ERROR',
    status: 503,
    cause: 'a certificate file is missing, half-written, expired or does not fit its key; the last good one stays',
    next: 'the error names the file; it is taken as soon as it is complete',
  },
  'CV-WORKLOAD-API': {
    fault: 'control',
    layer: 'identity',
    flag: 'IDENTITY_ERROR',
    status: 503,
    cause: 'the SPIFFE Workload API cannot be reached, denies the agent, or has no SVID for an identity',
    next: 'the error has the socket and the reason; check SPIFFE_ENDPOINT_SOCKET and the registration entries of this agent',
  },
  'CV-CRL': {
    fault: 'control',
    layer: 'identity',
    flag: 'IDENTITY_ERROR',
    status: 503,
    cause: 'revocation lists cannot be read, or are not signed by the CA they name; the last good ones stay',
    next: 'the error names the reason; put a complete list of that CA, PEM or DER, into the file at CRL_PATH',
  },
  'CV-ENROL-SOURCE': {
    fault: 'local',
    layer: 'capture',
    flag: 'CONNECT',
    status: 503,
    cause: 'the list of pods to enrol cannot be read; pods enrolled before stay as they are',
    next: 'the error has file, line and field',
  },
  'CV-NETNS': {
    fault: 'local',
    layer: 'capture',
    flag: 'CONNECT',
    status: 503,
    cause: 'the network namespace of a pod cannot be opened or is not one',
    next: 'the pod may be gone; enrolment is retried until the pod leaves the list',
  },
  'CV-REDIRECT': {
    fault: 'local',
    layer: 'capture',
    flag: 'CONNECT',
    status: 503,
    cause: 'redirection rules could not be written into a pod',
    next: 'the error has what nft or ip said; enrolment is retried',
  },
  'CV-BIND': {
    fault: 'local',
    layer: 'capture',
    flag: 'CONNECT',
    status: 503,
    cause: 'a port the agent needs is taken',
    next: 'find the owner with ss -ltnp (inside the pod netns for 15001, 15006, 15008)',
  },
  'CV-SYS': {
    fault: 'local',
    layer: 'agent',
    flag: 'CONNECT',
    status: 503,
    cause: 'the kernel refused a call, or a capability or tool is missing',
    next: 'the error names the call or tool and what it is for; run culvert agent --check',
  },
  'CV-AGENT-RUNNING': {
    fault: 'local',
    layer: 'agent',
    flag: 'CONNECT',
    status: 503,
    cause: 'another agent already serves this node',
    next: 'stop it first, or give this one its own --run-dir',
  },
} as const satisfies Record<`CV-${string}`, Reason>;

export type ReasonCode = keyof typeof REASONS;

/** The row of `code`, typed as the general shape. */
export function reasonOf(code: ReasonCode): Reason {
  return REASONS[code];
}
