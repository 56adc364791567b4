/** From the resolved configuration to the slices that the data plane and the verdict authority take. */
import { PORTS } from '../model/ports.ts';
import type { ProxySettings } from '../proxy/settings.ts';
import type { AgentConfig } from './settings/config.ts';
import type { AuthoritySettings } from './verdicts/verdict-authority.ts';

function portsOf({ isSocksEnabled }: Pick<AgentConfig, 'isSocksEnabled'>): ProxySettings['ports'] {
  const { hbone, inboundPlaintext: plaintext, outbound, socks } = PORTS;
  return { hbone, plaintext, outbound, ...(isSocksEnabled && { socks }) };
}

/** Ports no connection may be relayed to: it would come back to us. */
export function illegalPorts(config: Pick<AgentConfig, 'isSocksEnabled'>): readonly number[] {
  return Object.values(portsOf(config));
}

/** ztunnel's. The handshake and the answer to CONNECT have no bound there. */
const CONNECT_TIMEOUT_MS = 10_000;
/** Of who comes: it costs us a place that others may need. */
const HANDSHAKE_TIMEOUT_MS = 10_000;
/** Of whom we dial: the agent there may have no CPU for 20 s. */
const DIAL_HANDSHAKE_TIMEOUT_MS = 30_000;
/** The other side may have no CPU for 20 s, and wait 5 s for its state and 10 s for its application. */
const RESPONSE_TIMEOUT_MS = 40_000;

/** How long is waited for other ends. */
export const TIMEOUTS = {
  connectTimeoutMs: CONNECT_TIMEOUT_MS,
  handshakeTimeoutMs: HANDSHAKE_TIMEOUT_MS,
  dialHandshakeTimeoutMs: DIAL_HANDSHAKE_TIMEOUT_MS,
  responseTimeoutMs: RESPONSE_TIMEOUT_MS,
} as const satisfies Partial<ProxySettings>;

/** A handshake holds about 40 KiB; so many silent ones cost a pod's clients 20 MiB at most. */
const MAX_HANDSHAKES = 512;
/** Tunnels of one pod in one direction: 100 streams each. */
const MAX_TUNNELS = 4_096;

/** Per pod. Queries in progress hold a socket per nameserver; those over TCP end after 5 s of silence, as in the reference. */
const DNS_LIMITS = { maxQueries: 512, maxConnections: 256, connectionIdleMs: 5_000 } as const;

export function proxySettings(config: AgentConfig): ProxySettings {
  const { http2, keepalive } = config;
  const windows = {
    streamWindowBytes: http2.streamWindowBytes,
    connectionWindowBytes: http2.connectionWindowBytes,
    maxFrameBytes: http2.frameBytes,
  };
  return {
    ports: portsOf(config),
    isIpv6Enabled: config.isIpv6Enabled,
    ...(config.packetMark !== undefined && { mark: config.packetMark }),
    isReusePort: config.isReusePort,
    ...(keepalive !== undefined && { keepalive: keepaliveOptions(keepalive, config.isUserTimeoutEnabled) }),
    ...TIMEOUTS,
    idleTimeoutMs: config.idleTimeoutMs,
    halfClosedTimeoutMs: config.halfClosedTimeoutMs,
    maxHandshakes: MAX_HANDSHAKES,
    maxTunnels: MAX_TUNNELS,
    maxConnections: config.maxConnectionsPerPod,
    isFair: config.isFair,
    isShortCutAccepted: config.isShortCutAccepted,
    budget: config.budget,
    hasRevocationLists: config.crlPath !== undefined,
    pool: { maxStreams: config.poolMaxStreams, idleReleaseMs: config.poolIdleReleaseMs },
    // Header lists: what we are ready to read, 16 KiB as client and 64 KiB as server.
    http2Client: { ...windows, maxHeaderListBytes: 16_384 },
    http2Server: { ...windows, maxHeaderListBytes: 65_536, maxStreams: 200 },
    ...(config.dnsProxy !== undefined && { dns: { ...config.dnsProxy, ...DNS_LIMITS } }),
  };
}

export function authoritySettings(config: AgentConfig): AuthoritySettings {
  return {
    nodeName: config.nodeName,
    clusterId: config.clusterId,
    isDedicated: config.podSource.kind === 'own',
    network: config.network,
    illegalPorts: new Set(illegalPorts(config)),
    isResponseBaggageEnabled: config.isResponseBaggageEnabled,
    isOrigSrcEnabled: config.isOrigSrcEnabled ?? hasReturnPath(config),
    isLocalhostAppTunnelEnabled: config.isLocalhostAppTunnelEnabled,
    isPolicyLogAtInfo: config.isPolicyLogAtInfo,
    isShortCutAccepted: config.isShortCutAccepted,
    dns: {
      clusterDomain: config.clusterDomain,
      preferredNamespace: config.preferredServiceNamespace,
      isIpv6Enabled: config.isIpv6Enabled,
    },
  };
}

/** Replies to a borrowed address find us by rules and routes, which where we do not redirect nobody promised to make. */
function hasReturnPath({ podSource }: AgentConfig): boolean {
  return podSource.kind !== 'own' || podSource.redirection === 'own';
}

type Keepalive = NonNullable<AgentConfig['keepalive']>;

function keepaliveOptions({ idleMs, intervalMs, probes }: Keepalive, isUserTimeoutEnabled: boolean) {
  return {
    // The kernel counts whole seconds and takes no zero.
    idleSeconds: Math.max(1, Math.round(idleMs / 1_000)),
    intervalSeconds: Math.max(1, Math.round(intervalMs / 1_000)),
    probes,
    ...(isUserTimeoutEnabled ? { userTimeoutMs: Math.min(idleMs + intervalMs * probes, 2 ** 31 - 1) } : {}),
  };
}
