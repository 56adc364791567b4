/** Makes the provider of certificates that the settings name. */
import type { MeshError } from '../base/errors.ts';
import { CertificateFiles } from '../identity/certificate-files.ts';
import type { CertificateProvider } from '../identity/certificate-provider.ts';
import { CertificateVault, type CertificateVaultDeps } from '../identity/certificate-vault.ts';
import { EmbeddedCa } from '../identity/embedded-ca.ts';
import { IstioCa } from '../identity/istio-ca.ts';
import { tlsOptions } from '../identity/tls-policy.ts';
import { WORKLOAD_HEADERS, WorkloadApi } from '../identity/workload-api.ts';
import type { RpcAddress } from '../rpc/address.ts';
import { RpcChannel, type RpcChannelOptions } from '../rpc/channel.ts';
import { readBounded } from '../sys/files.ts';
import type { AgentMetrics } from '../telemetry/metrics.ts';
import type { AgentDeps } from './agent.ts';
import type { AgentConfig } from './settings/config.ts';
import type { RpcServerSettings } from './settings/rpc.ts';

/** Servers of the Workload API end connections that are pinged more often than every five minutes (default of grpc-go). */
const SOCKET_KEEPALIVE = { intervalMs: 600_000, timeoutMs: 20_000 } as const;

/** Rejects with `CV-CA` when the embedded CA cannot be used; every other source is waited for. `undo` closes it. */
export async function openCertificateSource(
  config: AgentConfig,
  deps: AgentDeps,
  { own }: AgentMetrics,
  undo: AsyncDisposableStack,
): Promise<CertificateProvider> {
  const { clock, random } = deps;
  const log = deps.logs.scope('identity');
  const onProblem = ({ code }: MeshError): void => own.certificateSourceFailed(code);
  const source = config.certificateSource;
  switch (source.kind) {
    case 'embedded':
      return undo.use(await EmbeddedCa.open(source.dir, { clock, log }));
    case 'files':
      return undo.use(new CertificateFiles(source.dir, { clock, log, onProblem }));
    case 'istio': {
      const channel = undo.use(istioChannel(source.server, config, deps));
      return new IstioCa({ channel, isShared: config.podSource.kind !== 'own' });
    }
    case 'workload-api': {
      const channel = undo.use(socketChannel(source.address, deps));
      return undo.use(new WorkloadApi({ channel, clock, random, log, onProblem }));
    }
  }
}

/** Only what a CA issued: the other sources are on this node, and keep what they have. */
export function certificateVault(
  { snapshotDir, certificateSource }: AgentConfig,
  deps: CertificateVaultDeps,
): CertificateVault | undefined {
  if (snapshotDir === undefined || certificateSource.kind !== 'istio') return undefined;
  return CertificateVault.open(snapshotDir, deps);
}

function istioChannel(server: RpcServerSettings, config: AgentConfig, { clock }: AgentDeps): RpcChannel {
  const options: RpcChannelOptions = {
    address: server.address,
    name: 'Istio CA',
    failureCode: 'CV-CA',
    tls: {
      roots: server.roots,
      context: tlsOptions(config.tls),
      ...(server.altHostname !== undefined && { altHostname: server.altHostname }),
    },
    credentials: { token: server.token, clusterId: config.clusterId, headers: server.headers },
  };
  return new RpcChannel(options, { clock, files: { read: readBounded } });
}

function socketChannel(address: RpcAddress, { clock }: AgentDeps): RpcChannel {
  const options: RpcChannelOptions = {
    address,
    name: 'Workload API',
    failureCode: 'CV-WORKLOAD-API',
    tls: { roots: { kind: 'system' } },
    credentials: { token: { kind: 'none' }, headers: WORKLOAD_HEADERS },
    keepalive: SOCKET_KEEPALIVE,
  };
  return new RpcChannel(options, { clock, files: { read: readBounded } });
}
