/** How a gRPC server of the control plane is reached: address, trust roots, token, headers. */
import { parseRpcAddress, type RpcAddress } from '../../rpc/address.ts';
import { type TokenSource, tokenSource } from '../../rpc/token.ts';
import { parseTrustRoots, type TrustRoots } from '../../rpc/trust-roots.ts';
import type { SettingsReader, Source } from './reader.ts';

export interface RpcServerSettings {
  readonly address: RpcAddress;
  readonly roots: TrustRoots;
  readonly altHostname: string | undefined;
  readonly token: TokenSource;
  /** Lower-case names. */
  readonly headers: ReadonlyMap<string, string>;
}

interface RpcServerSources {
  readonly address: Source;
  readonly roots: Source;
  readonly altHostname: Source;
  readonly headerPrefix: string;
  /** Names after the prefix, as written. */
  readonly headers: Readonly<Record<string, string>>;
}

/** Where the chart mounts the ConfigMap `istio-ca-root-cert`. */
export const DEFAULT_ROOTS = './var/run/secrets/istio/root-cert.pem';

/** Where istiod is when nobody says it. */
export function defaultControlPlane(read: SettingsReader): string {
  return read.isSet({ env: 'KUBERNETES_SERVICE_HOST' })
    ? 'https://istiod.istio-system.svc:15012'
    : 'https://localhost:15012';
}

export function rpcServerSettings(
  read: SettingsReader,
  addressText: string,
  sources: RpcServerSources,
): RpcServerSettings {
  return {
    address: addressOf(read, addressText, sources.address),
    roots: parseTrustRoots(read.text(sources.roots, DEFAULT_ROOTS)),
    altHostname: read.optional(sources.altHostname),
    token: tokenOf(read),
    headers: headersOf(read, sources),
  };
}

function addressOf(read: SettingsReader, text: string, source: Source): RpcAddress {
  const result = parseRpcAddress(text);
  if (result.ok) return result.address;
  read.refuse(source, `cannot be used: ${result.problem}`);
  return { kind: 'tls', host: 'localhost', port: 1 };
}

/** A token file that is there and cannot be read is an error of each call, which tries again. */
function tokenOf(read: SettingsReader): TokenSource {
  return tokenSource(read.optional({ env: 'AUTH_TOKEN' }), (path) => {
    try {
      return read.start.readText(path) !== undefined;
    } catch {
      return true;
    }
  });
}

function headersOf(read: SettingsReader, { headerPrefix, headers }: RpcServerSources): ReadonlyMap<string, string> {
  const byName = new Map<string, string>();
  for (const [suffix, value] of Object.entries(headers)) {
    const name = suffix.toLowerCase();
    const problem = headerProblem(name, value);
    if (problem === undefined) byName.set(name, value);
    else read.refuse({ env: `${headerPrefix}${suffix}` }, problem);
  }
  return byName;
}

/** What gRPC takes as metadata (its HTTP/2 mapping, "Custom-Metadata"), less the names that the protocol itself uses. */
function headerProblem(name: string, value: string): string | undefined {
  if (!/^[0-9a-z_.-]+$/.test(name)) return 'is not a header name: letters, digits, "_", "-" and "." only';
  if (name.startsWith('grpc-') || name.endsWith('-bin')) return 'is reserved by gRPC';
  if (!/^[\x20-\x7e]*$/.test(value)) return 'must have a value of printable ASCII';
  return undefined;
}
