/** Who signs the certificates of this node's pods, and whom they no longer trust. */
import { parseRpcAddress, type RpcAddress } from '../../rpc/address.ts';
import type { SettingsReader, Source } from './reader.ts';
import { defaultControlPlane, type RpcServerSettings, rpcServerSettings } from './rpc.ts';
import { XDS_ADDRESS } from './xds.ts';

export interface IdentitySettings {
  readonly certificateSource: CertificateSourceSettings;
  /** Lifetime to ask for. */
  readonly certificateTtlMs: number;
  /** File of revocation lists; watched. */
  readonly crlPath: string | undefined;
}

export type CertificateSourceSettings =
  /** A CA in a directory that all agents of the mesh share. */
  | { readonly kind: 'embedded'; readonly dir: string }
  /** Istio's `IstioCertificateService`. */
  | { readonly kind: 'istio'; readonly server: RpcServerSettings }
  /** A directory that something else keeps filled. */
  | { readonly kind: 'files'; readonly dir: string }
  /** The SPIFFE Workload API on a unix socket. */
  | { readonly kind: 'workload-api'; readonly address: RpcAddress };

type Kind = CertificateSourceSettings['kind'];

const DAY_MS = 24 * 3_600_000;
const CA_ADDRESS: Source = { env: 'CA_ADDRESS' };
const SOCKET: Source = { env: 'SPIFFE_ENDPOINT_SOCKET' };
const CERT_DIR: Source = { flag: 'cert-dir', env: 'CULVERT_CERT_DIR' };
const CA_DIR: Source = { flag: 'ca-dir', env: 'CULVERT_CA_DIR' };

export function identitySettings(read: SettingsReader): IdentitySettings {
  return {
    certificateSource: sourceOf(kindOf(read), read),
    certificateTtlMs: read.durationMs({ env: 'SECRET_TTL' }, DAY_MS, { minMs: 1_000, maxMs: 365 * DAY_MS }),
    crlPath: read.optional({ env: 'CRL_PATH' }),
  };
}

/** What names a source; only one may. */
const NAMED: readonly (readonly [Kind, Source, string])[] = [
  ['istio', CA_ADDRESS, 'CA_ADDRESS (Istio CA)'],
  ['workload-api', SOCKET, 'SPIFFE_ENDPOINT_SOCKET (Workload API)'],
  ['files', CERT_DIR, 'CULVERT_CERT_DIR (files)'],
  ['embedded', CA_DIR, 'CULVERT_CA_DIR (embedded CA)'],
];

function kindOf(read: SettingsReader): Kind {
  const named = NAMED.filter(([, source]) => read.optional(source) !== undefined);
  const [first, second] = named;
  if (first !== undefined && second !== undefined) {
    const names = named.map(([, , title]) => title).join(' and ');
    read.refuse(second[1], `names a second source of certificates (${names}); unset all but one`);
  }
  if (first !== undefined) return first[0];
  if (defaultCa(read) === undefined) return 'embedded';
  if (!read.isSet(CA_ADDRESS)) return 'istio';
  read.refuse(
    CA_ADDRESS,
    'is empty and nothing else names a source of certificates; set CULVERT_CA_DIR, or unset it for istiod',
  );
  return 'embedded';
}

/** Who configures the agent signs for it too: nobody else would be trusted by its peers. ztunnel looks for istiod alone. */
function defaultCa(read: SettingsReader): string | undefined {
  return read.start.defaults === 'ztunnel' ? defaultControlPlane(read) : read.optional(XDS_ADDRESS);
}

function sourceOf(kind: Kind, read: SettingsReader): CertificateSourceSettings {
  switch (kind) {
    case 'embedded':
      return { kind, dir: read.text(CA_DIR, '/var/lib/culvert/ca') };
    case 'files':
      return { kind, dir: read.text(CERT_DIR, '') };
    case 'workload-api':
      return { kind, address: socketOf(read) };
    case 'istio':
      return { kind, server: istioCa(read) };
  }
}

function istioCa(read: SettingsReader): RpcServerSettings {
  return rpcServerSettings(read, read.optional(CA_ADDRESS) ?? defaultCa(read) ?? '', {
    address: CA_ADDRESS,
    roots: { env: 'CA_ROOT_CA' },
    altHostname: { env: 'ALT_CA_HOSTNAME' },
    headerPrefix: 'CA_HEADER_',
    headers: read.withPrefix('CA_HEADER_'),
  });
}

/** Private keys come through it, so it is a unix socket: the `tcp` form of the specification would send them in clear. */
function socketOf(read: SettingsReader): RpcAddress {
  const result = parseRpcAddress(read.text(SOCKET, ''));
  if (result.ok && result.address.kind === 'unix') return result.address;
  read.refuse(SOCKET, 'must be a unix socket: unix:///run/spire/sockets/agent.sock');
  return { kind: 'unix', path: '/' };
}
