/** Who this agent is for the control plane. */
import { create, type JsonObject, type JsonValue } from '@bufbuild/protobuf';
import { type Node, NodeSchema } from '../wire/pb/core_pb.ts';

export interface NodeIdentity {
  readonly instanceIp: string;
  readonly podName: string;
  readonly podNamespace: string;
  readonly nodeName: string;
  /** `ISTIO_META_*` and `proxyMetadata`, without the prefix; wins over what is said above. */
  readonly metadata: Readonly<Record<string, string>>;
  /** `ISTIO_METAJSON_*`, parsed; wins over everything. */
  readonly jsonMetadata: Readonly<Record<string, JsonValue>>;
}

export function nodeOf(settings: NodeIdentity): Node {
  const { instanceIp, podName, podNamespace, nodeName } = settings;
  const metadata: JsonObject = {
    NAME: podName,
    NAMESPACE: podNamespace,
    INSTANCE_IPS: instanceIp,
    NODE_NAME: nodeName,
    ...settings.metadata,
    ...settings.jsonMetadata,
  };
  const id = `ztunnel~${instanceIp}~${podName}.${podNamespace}~${podNamespace}.svc.cluster.local`;
  return create(NodeSchema, { id, metadata });
}
