/** The mesh and pod files of the demo (`xds/mesh-file.ts`, `capture/pod-list.ts`). Pure but for the write. */
import { renameSync, writeFileSync } from 'node:fs';
import { Scalar, stringify } from 'yaml';
import type { LabPod } from '../lab/lab.ts';

const NAMESPACE = 'demo';
const TRUST_DOMAIN = 'cluster.local';
export const APP_PORT = 8_080;
const SERVICE_PORT = 80;
/** A map: ztunnel takes a port for a number only when it stands there without quotes, which a name never does. */
const PORTS = new Map([[SERVICE_PORT, APP_PORT]]);

/** `cart.demo.svc.cluster.local` in front of the pod `server`; its address exists nowhere but in the mesh. */
interface ServiceSpec {
  readonly server: string;
  readonly vips: readonly string[];
}

export interface PolicySpec {
  readonly name: string;
  /** The pod it protects, and the only service account it lets in. */
  readonly protects: string;
  readonly allows: string;
}

export interface MeshSpec {
  readonly pods: readonly LabPod[];
  readonly service: ServiceSpec;
  readonly policy?: PolicySpec;
}

export function principalOf(serviceAccount: string): string {
  return `${TRUST_DOMAIN}/ns/${NAMESPACE}/sa/${serviceAccount}`;
}

export function meshFile({ pods, service, policy }: MeshSpec): string {
  const hostname = `${service.server}.${NAMESPACE}.svc.${TRUST_DOMAIN}`;
  return stringify({
    services: [
      {
        name: service.server,
        namespace: NAMESPACE,
        hostname,
        // The part before the slash is the network; ours has no name.
        vips: service.vips.map((ip) => `/${ip}`),
        ports: PORTS,
      },
    ],
    workloads: pods.map((pod) => ({
      uid: uidOf(pod),
      name: pod.name,
      namespace: NAMESPACE,
      trustDomain: TRUST_DOMAIN,
      serviceAccount: pod.name,
      workloadIps: pod.ips,
      protocol: 'HBONE',
      node: pod.node,
      services: pod.name === service.server ? { [`${NAMESPACE}/${hostname}`]: PORTS } : {},
      authorizationPolicies: pod.name === policy?.protects ? [`${NAMESPACE}/${policy.name}`] : [],
    })),
    policies: policy === undefined ? [] : [policyRecord(policy)],
  });
}

function policyRecord({ name, allows }: PolicySpec) {
  return {
    name,
    namespace: NAMESPACE,
    scope: 'WorkloadSelector',
    action: 'Allow',
    dryRun: false,
    rules: [[[{ principals: [exactly(principalOf(allows))] }]]],
  };
}

/** `!Exact …`, as ztunnel wants it. */
function exactly(text: string): Scalar<string> {
  const scalar = new Scalar(text);
  scalar.tag = '!Exact';
  return scalar;
}

export function podsFile(pods: readonly LabPod[]): string {
  return stringify({
    pods: pods.map((pod) => ({
      uid: uidOf(pod),
      name: pod.name,
      namespace: NAMESPACE,
      serviceAccount: pod.name,
      netns: pod.inside.path,
    })),
  });
}

function uidOf(pod: LabPod): string {
  return `lab//Pod/${NAMESPACE}/${pod.name}`;
}

/** Readers see the old text or the new one, never half of it. */
export function replaceFile(file: string, text: string): void {
  const next = `${file}.next`;
  writeFileSync(next, text);
  renameSync(next, file);
}
