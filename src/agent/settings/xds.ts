/** The control plane that tells the mesh, if there is one. */
import type { JsonValue } from '@bufbuild/protobuf';
import { canonicalIp } from '../../base/ip.ts';
import type { NodeIdentity } from '../../xds/node.ts';
import type { NodeSettings } from './node.ts';
import type { SettingsReader, Source } from './reader.ts';
import { defaultControlPlane, type RpcServerSettings, rpcServerSettings } from './rpc.ts';

export interface XdsSettings {
  /** Absent: the mesh is what the mesh file says. */
  readonly xds: XdsConfig | undefined;
}

export interface XdsConfig {
  readonly server: RpcServerSettings;
  /** Addresses are told only when somebody asks for them. */
  readonly isOnDemand: boolean;
  readonly node: NodeIdentity;
}

/** Where the control plane is; empty = none. */
export const XDS_ADDRESS: Source = { flag: 'xds-address', env: 'XDS_ADDRESS', config: 'discoveryAddress' };
const ON_DEMAND: Source = { env: 'XDS_ON_DEMAND' };
const INSTANCE_IP: Source = { env: 'INSTANCE_IP' };

export function xdsSettings(read: SettingsReader, node: NodeSettings): XdsSettings {
  const isOnDemand = read.bool(ON_DEMAND, false);
  const address = read.text(XDS_ADDRESS, read.start.defaults === 'ztunnel' ? defaultControlPlane(read) : '');
  if (address === '') return { xds: undefined };
  const server = rpcServerSettings(read, address, {
    address: XDS_ADDRESS,
    roots: { env: 'XDS_ROOT_CA' },
    altHostname: { env: 'ALT_XDS_HOSTNAME' },
    headerPrefix: 'XDS_HEADER_',
    headers: read.withPrefix('XDS_HEADER_'),
  });
  return { xds: { server, isOnDemand, node: nodeIdentity(read, node) } };
}

function nodeIdentity(read: SettingsReader, { self, nodeName, metadata }: NodeSettings): NodeIdentity {
  if (canonicalIp(self.instanceIp) === undefined) {
    read.refuse(
      INSTANCE_IP,
      `must be an IP address, got "${self.instanceIp}": the control plane refuses the node otherwise`,
    );
  }
  return {
    instanceIp: self.instanceIp,
    podName: self.podName ?? '',
    podNamespace: self.namespace ?? '',
    nodeName,
    metadata,
    jsonMetadata: jsonMetadata(read),
  };
}

function jsonMetadata(read: SettingsReader): Readonly<Record<string, JsonValue>> {
  const entries = Object.entries(read.withPrefix('ISTIO_METAJSON_')).flatMap(([name, text]): [string, JsonValue][] => {
    try {
      return [[name, JSON.parse(text) as JsonValue]];
    } catch {
      read.refuse({ env: `ISTIO_METAJSON_${name}` }, 'is not JSON: quote text, for example "text"');
      return [];
    }
  });
  return Object.fromEntries(entries);
}
