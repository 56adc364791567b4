/** Which node, cluster and mesh this agent serves, and which pod it is itself. */
import { isDedicated } from './dedicated.ts';
import type { SettingsReader, Source } from './reader.ts';

export interface NodeSettings {
  /** Kubernetes node this agent serves: workloads with this `node` are local. Empty, in dedicated mode only: all are. */
  readonly nodeName: string;
  readonly network: string;
  readonly clusterId: string;
  /** Domain of Kubernetes names. */
  readonly clusterDomain: string;
  /** Pod that the agent runs in; what is unknown is absent. */
  readonly self: {
    readonly podName: string | undefined;
    readonly namespace: string | undefined;
    readonly serviceAccount: string | undefined;
    readonly trustDomain: string;
    readonly instanceIp: string;
  };
  /** What the control plane and `/config_dump` are told about this proxy: `ISTIO_META_*` and `proxyMetadata`. */
  readonly metadata: Readonly<Record<string, string>>;
}

const NODE: Source = { flag: 'node', env: 'NODE_NAME' };

export function nodeSettings(read: SettingsReader): NodeSettings {
  return {
    nodeName: isDedicated(read)
      ? read.text(NODE, '')
      : read.required(NODE, 'the name of this Kubernetes node, in a pod from fieldRef spec.nodeName'),
    network: read.text({ flag: 'network', env: 'NETWORK' }, ''),
    clusterId: read.text({ flag: 'cluster', meta: 'CLUSTER_ID', env: 'CLUSTER_ID' }, 'Kubernetes'),
    clusterDomain: read.text({ env: 'CLUSTER_DOMAIN' }, 'cluster.local'),
    self: {
      podName: read.optional({ env: 'POD_NAME' }),
      namespace: read.optional({ env: 'POD_NAMESPACE' }),
      serviceAccount: read.optional({ env: 'SERVICE_ACCOUNT' }),
      trustDomain: read.text({ env: 'TRUST_DOMAIN' }, 'cluster.local'),
      instanceIp: read.text({ env: 'INSTANCE_IP' }, '1.1.1.1'),
    },
    metadata: read.metadata,
  };
}
