/** The `config` section of `/config_dump`: every key that ztunnel prints, with what it means here. */
import { formatHostPort } from '../../base/ip.ts';
import { PORTS } from '../../model/ports.ts';
import { formatRpcAddress } from '../../rpc/address.ts';
import type { TrustRoots } from '../../rpc/trust-roots.ts';
import { illegalPorts } from '../proxy-settings.ts';
import type { AgentConfig } from '../settings/config.ts';
import type { CertificateSourceSettings } from '../settings/identity.ts';
import { DEFAULT_ROOTS } from '../settings/rpc.ts';
import type { XdsConfig } from '../settings/xds.ts';

/** Shapes matter more than values: Kiali and istioctl decode this strictly. `null` is what they expect for "none". */
export function configSection(settings: AgentConfig): object {
  return {
    ...addresses(settings),
    ...tunnels(settings),
    ...sockets(settings),
    ...controlPlane(settings),
    network: settings.network,
    localNode: settings.nodeName,
    clusterId: settings.clusterId,
    clusterDomain: settings.clusterDomain,
    proxy: true,
    ...dns(settings),
    ...mode(settings),
    proxyMetadata: settings.metadata,
    proxyArgs: settings.proxyArgs,
    // Without workers the main thread carries all.
    numWorkerThreads: Math.max(1, settings.workers),
    inpodUds: settings.podSource.kind === 'zds' ? settings.podSource.socket : '',
    preferedServiceNamespace: settings.preferredServiceNamespace ?? null,
    selfTerminationDeadline: duration(settings.drainGraceMs),
    ztunnelIdentity: null,
    ztunnelWorkload: null,
    crlPath: settings.crlPath ?? null,
  };
}

function mode({ podSource }: AgentConfig) {
  if (podSource.kind !== 'own') return { proxyMode: 'Shared', proxyWorkloadInformation: null };
  const { name, namespace, serviceAccount } = podSource;
  return { proxyMode: 'Dedicated', proxyWorkloadInformation: { name, namespace, serviceAccount } };
}

function addresses(settings: AgentConfig) {
  const any = settings.isIpv6Enabled ? '[::]' : '0.0.0.0';
  return {
    adminAddr: { Localhost: [settings.isIpv6Enabled, settings.adminPort] },
    statsAddr: { SocketAddr: `${any}:${settings.statsPort}` },
    readinessAddr: { SocketAddr: `${any}:${settings.readinessPort}` },
    inboundAddr: `${any}:${PORTS.hbone}`,
    inboundPlaintextAddr: `${any}:${PORTS.inboundPlaintext}`,
    outboundAddr: `${any}:${PORTS.outbound}`,
    socks5Addr: settings.isSocksEnabled ? `127.0.0.1:${PORTS.socks}` : null,
    illegalPorts: illegalPorts(settings).toSorted((a, b) => a - b),
    ipv6Enabled: settings.isIpv6Enabled,
  };
}

function dns({ dnsProxy, isIpv6Enabled }: AgentConfig) {
  const { listen, nameservers = [], timeoutMs = 5_000, attempts = 2 } = dnsProxy ?? {};
  const servers = nameservers.flatMap((server) =>
    ['udp', 'tcp'].map((protocol) => ({ socket_addr: formatHostPort(server), protocol })),
  );
  return {
    dnsProxy: dnsProxy !== undefined,
    dnsProxyAddr:
      listen?.kind === 'address'
        ? { SocketAddr: formatHostPort(listen.address) }
        : { Localhost: [isIpv6Enabled, listen?.port ?? PORTS.dns] },
    dnsResolverCfg: { domain: null, search: [], name_servers: servers },
    dnsResolverOpts: { timeout: duration(timeoutMs), attempts, use_hosts_file: true },
  };
}

function tunnels(settings: AgentConfig) {
  return {
    windowSize: settings.http2.streamWindowBytes,
    connectionWindowSize: settings.http2.connectionWindowBytes,
    frameSize: settings.http2.frameBytes,
    poolMaxStreamsPerConn: settings.poolMaxStreams,
    poolUnusedReleaseTimeout: duration(settings.poolIdleReleaseMs),
    enableEnhancedBaggage: settings.isResponseBaggageEnabled,
    localhostAppTunnel: settings.isLocalhostAppTunnelEnabled,
  };
}

function sockets({ keepalive, ...settings }: AgentConfig) {
  return {
    packetMark: settings.packetMark ?? null,
    inpodPortReuse: settings.isReusePort,
    requireOriginalSource: settings.isOrigSrcEnabled ?? null,
    socketConfig: {
      keepaliveTime: duration(keepalive?.idleMs ?? 180_000),
      keepaliveInterval: duration(keepalive?.intervalMs ?? 180_000),
      keepaliveRetries: keepalive?.probes ?? 9,
      keepaliveEnabled: keepalive !== undefined,
      userTimeoutEnabled: settings.isUserTimeoutEnabled,
    },
  };
}

function controlPlane(settings: AgentConfig) {
  return {
    ...certificateAuthority(settings.certificateSource),
    ...controlPlaneServer(settings.xds),
    fakeCa: false,
    fakeSelfInbound: false,
    secretTtl: duration(settings.certificateTtlMs),
  };
}

function controlPlaneServer(xds: XdsConfig | undefined) {
  const { address, roots, altHostname, headers } = xds?.server ?? {};
  return {
    xdsAddress: address === undefined ? null : formatRpcAddress(address),
    xdsRootCert: roots === undefined ? { File: DEFAULT_ROOTS } : rootsOf(roots),
    altXdsHostname: altHostname ?? null,
    xdsHeaders: headersOf(headers ?? new Map()),
    xdsOnDemand: xds?.isOnDemand ?? false,
  };
}

function certificateAuthority(source: CertificateSourceSettings) {
  if (source.kind !== 'istio') {
    return { caAddress: null, caRootCert: { File: DEFAULT_ROOTS }, altCaHostname: null, caHeaders: [] };
  }
  const { address, roots, altHostname, headers } = source.server;
  return {
    caAddress: formatRpcAddress(address),
    caRootCert: rootsOf(roots),
    altCaHostname: altHostname ?? null,
    caHeaders: headersOf(headers),
  };
}

/** Values of headers may be credentials: their names are enough. */
function headersOf(headers: ReadonlyMap<string, string>): unknown {
  return [...headers.keys()].map((name) => [name, '<not shown>']);
}

function rootsOf(roots: TrustRoots): unknown {
  switch (roots.kind) {
    case 'file':
      return { File: roots.path };
    case 'inline':
      return 'Static';
    case 'system':
      return 'Default';
  }
}

function duration(ms: number): { secs: number; nanos: number } {
  const secs = Math.floor(ms / 1_000);
  return { secs, nanos: (ms - secs * 1_000) * 1_000_000 };
}
